"""Networks as points: all parameters as one flat vector, in the order of `named_parameters`."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autosparse.models.errors import SpecError, not_allowed
from autosparse.models.gradients import Batches
from autosparse.models.probes.contract import NETWORK, OTHER, Record
from autosparse.models.specs.run_specs import Spec

CHUNK = 2**22  # numbers that are in double precision at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class NormSettings(Spec):
    """The norm ratio has nothing to set."""


def norms(networks: Mapping[str, nn.Module], batches: Batches, generator: torch.Generator, settings: NormSettings) -> Record:
    """`norm_ratio` of the network and, where it is there, `norm_ratio_other` of the one it is compared with."""
    names = {NETWORK: "norm_ratio", OTHER: "norm_ratio_other"}
    return {name: norm_ratio(flatten(networks[role])) for role, name in names.items() if role in networks}


def flatten(network: nn.Module) -> Tensor:
    """A copy of all parameters, those of norms and biases too, as one vector (d,) of their dtype."""
    return torch.cat([param.detach().reshape(-1) for param in network.parameters()])


def unflatten(vector: Tensor, network: nn.Module) -> dict[str, Tensor]:
    """The inverse: parameter name -> tensor of the parameter's shape and dtype, differentiable with respect to `vector` (d,).

    Raises SpecError when `vector` has another length than the network has parameters.
    """
    params = dict(network.named_parameters())
    size = sum(param.numel() for param in params.values())
    if vector.shape != (size,):
        raise not_allowed("vector", tuple(vector.shape), f"the shape ({size},), one number for each parameter of the network")
    parts = vector.split([param.numel() for param in params.values()])
    return {name: part.view(param.shape).to(param.dtype) for (name, param), part in zip(params.items(), parts, strict=True)}


def check_same_shapes(network: nn.Module, other: nn.Module) -> None:
    """Raise SpecError naming the first parameter that only one of them has, or that differs in shape."""
    mine, theirs = ({name: tuple(param.shape) for name, param in one.named_parameters()} for one in (network, other))
    for name in [*mine, *theirs]:
        if mine.get(name) != theirs.get(name):
            found = f"{name} {mine.get(name, 'missing')} and {theirs.get(name, 'missing')}"
            raise SpecError(f"networks: {found} are not allowed; allowed: two networks with the same parameters")


def displacement(network: nn.Module, other: nn.Module) -> Tensor:
    """`network` - `other` in double precision, (d,). Raises SpecError when their parameters differ in name or shape."""
    check_same_shapes(network, other)
    return flatten(network).double() - flatten(other).double()


def norm_ratio(vector: Tensor) -> float:
    """||w||_2 / ||w||_1 in double precision: 1 for a single weight, 1 / sqrt(d) where all are equally large.

    In single precision a sum of ones may stop at 2**24. Raises SpecError for a vector of zeros.
    """
    squares, sizes = 0.0, 0.0
    for part in vector.detach().reshape(-1).split(CHUNK):
        part = part.double()
        squares += float(part.square().sum())
        sizes += float(part.abs().sum())
    if sizes == 0.0:
        raise not_allowed("vector", 0.0, "at least one weight that is not zero")
    return squares**0.5 / sizes
