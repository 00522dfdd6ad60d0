"""Masks: parameter name -> bool tensor of the parameter's shape, True = kept. Facts about masks."""

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from autosparse.models.errors import SpecError
from autosparse.models.masks.prunable import CONVOLUTIONS as CONVOLUTIONS
from autosparse.models.masks.prunable import prunable as prunable

Mask = dict[str, Tensor]
Scores = dict[str, Tensor]  # float, of the parameter's shape; higher = keep


def full(params: Mapping[str, Tensor]) -> Mask:
    """The mask that keeps every weight of `params`."""
    return {name: torch.ones(param.shape, dtype=torch.bool, device=param.device) for name, param in params.items()}


@torch.no_grad()
def apply_(network: nn.Module, mask: Mask) -> None:
    """Set masked weights to zero in place. Raises SpecError when the mask is not one of this network."""
    for param, keep in _pairs(network, mask):
        param.masked_fill_(~keep, 0)


@torch.no_grad()
def violations(network: nn.Module, mask: Mask) -> int:
    """How many masked weights are not exactly zero (NaN is not zero). Raises SpecError when the mask is not one of this network."""
    return sum(int(((param != 0) & ~keep).count_nonzero()) for param, keep in _pairs(network, mask))


def kept(mask: Mask) -> int:
    """Number of kept weights."""
    return sum(int(keep.count_nonzero()) for keep in mask.values())


def total(mask: Mask) -> int:
    """Number of prunable weights: the denominator of every density."""
    return sum(keep.numel() for keep in mask.values())


def density(mask: Mask) -> float:
    """Kept / prunable weights."""
    return kept(mask) / total(mask)


def layer_densities(mask: Mask) -> dict[str, float]:
    """Kept / prunable weights of each layer."""
    return {name: int(keep.count_nonzero()) / keep.numel() for name, keep in mask.items()}


def collapsed_layers(mask: Mask) -> list[str]:
    """Layers without a kept weight."""
    return [name for name, keep in mask.items() if not keep.any()]


def overlap(mask: Mask, other: Mask) -> float:
    """Share of the weights kept by `other` that `mask` keeps too; symmetric between masks of equal density."""
    shared = sum(int((mask[name] & keep).count_nonzero()) for name, keep in other.items())
    return shared / max(kept(other), 1)


def checksum(mask: Mask) -> str:
    """Sixteen hex digits (SHA-256) over names, shapes and bits; the same for any device, memory layout and order of names."""
    digest = hashlib.sha256()
    for name, keep in sorted(mask.items()):
        digest.update(f"{name}{tuple(keep.shape)}".encode())
        digest.update(np.packbits(keep.cpu().contiguous().numpy()).tobytes())
    return digest.hexdigest()[:16]


def _pairs(network: nn.Module, mask: Mask) -> Iterator[tuple[nn.Parameter, Tensor]]:
    params = dict(network.named_parameters())
    for name, keep in mask.items():
        if name not in params or params[name].shape != keep.shape:
            found = tuple(params[name].shape) if name in params else "no such parameter"
            raise SpecError(f"mask: {name} of shape {tuple(keep.shape)} is not allowed; allowed: a parameter of the network ({found})")
        yield params[name], keep.to(params[name].device)
