"""Masks in torch's own terms: torch.nn.utils.prune, sparse tensors, channels of layers."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from autosparse.models.errors import not_allowed
from autosparse.models.masks.prunable import TRANSPOSED

SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)


def set_torch_prune(network: nn.Module, mask: Mapping[str, Tensor]) -> None:
    """Prune each weight by its mask. Raises SpecError, before anything is pruned, for a reparametrized weight."""
    places = {}
    for name in mask:
        owner, _, leaf = name.rpartition(".")
        module, weight = network.get_submodule(owner), leaf.removesuffix("_orig")
        plain_weight = weight in module._parameters or f"{weight}_mask" in module._buffers
        if not plain_weight or weight.startswith("original") or weight.endswith("_v"):
            raise not_allowed("mask", name, "a plain weight; torch.nn.utils.prune cannot prune a reparametrized one")
        places[name] = module, weight
    for name, (module, weight) in places.items():
        torch_prune.custom_from_mask(module, weight, mask[name].to(getattr(module, weight).device))


def read_torch_prune(network: nn.Module, *, remove: bool) -> dict[str, Tensor]:
    """Zeros and ones by the name of the parameter; `remove` takes torch's pruning off. Raises SpecError where nothing was pruned."""
    found: dict[str, Tensor] = {}
    for prefix, module in network.named_modules():
        for weight in [name.removesuffix("_orig") for name in module._parameters if name.endswith("_orig")]:
            if (keep := module._buffers.get(f"{weight}_mask")) is not None:
                found[f"{prefix}.{weight if remove else weight + '_orig'}".lstrip(".")] = keep.clone()
                if remove:
                    torch_prune.remove(module, weight)
    if not found:
        raise not_allowed("model", type(network).__name__, "a network that torch.nn.utils.prune has pruned")
    return found


def dead_rows(network: nn.Module, effective: Mapping[str, Tensor]) -> dict[str, int]:
    """By layer: how many of its output channels have no weight in the mask."""
    dead = {}
    for name, keep in effective.items():
        owner = network.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, TRANSPOSED):  # inputs, outputs of a group, kernel
            keep = keep.unflatten(0, (owner.groups, -1)).transpose(1, 2).flatten(0, 1)
        dead[name] = len(keep) - int(keep.flatten(1).any(1).count_nonzero())
    return dead


def sparse_matrix(weight: Tensor, keep: Tensor, layout: torch.layout) -> Tensor:
    """The kept weights as a sparse matrix, the first dimension by all others. Raises SpecError for other layouts."""
    if layout not in SPARSE:
        raise not_allowed("layout", layout, ", ".join(map(str, SPARSE)))
    matrix, kept = weight.reshape(len(weight), -1), keep.to(weight.device).reshape(len(weight), -1)
    found = torch.sparse_coo_tensor(kept.nonzero().T, matrix[kept], matrix.shape, is_coalesced=True, check_invariants=True)
    if layout is torch.sparse_coo:
        return found
    return found.to_sparse_csr() if layout is torch.sparse_csr else found.to_sparse_csc()
