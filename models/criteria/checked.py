"""What a criterion gives, compared with what it promised: somebody else's code says in one line what is wrong with it."""

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from autosparse.models.criteria.contract import Criterion
from autosparse.models.errors import DivergedError, SpecError
from autosparse.models.gradients import Batches
from autosparse.models.masks.allocation import keep_count
from autosparse.models.masks.awake import awake
from autosparse.models.masks.mask import Mask, Scores, kept, prunable, total


def checked(name: str, criterion: Criterion) -> Criterion:
    """The criterion `name` with both halves held to `contract.py`; scores come in the order of the network.

    What is zero in the network and lets no gradient through is woken for the scoring (`awake`).

    Scoring raises SpecError for anything but a float tensor of its shape for each prunable weight, and for a changed network;
    DivergedError for a NaN. Allocation raises SpecError for anything but a mask of exactly the density, with `floor` weights in each
    layer or all it has.
    """

    def score(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
        before = {key: value.detach().clone() for key, value in _tensors(network)}
        with awake(network):
            scores = criterion.score(network, batches, generator, head=head, density=density)
        _check_untouched(name, before, network)
        params = prunable(network, head=head)
        _check_tensors(name, "scores", scores, params)
        for layer in params:
            if not scores[layer].is_floating_point():
                raise SpecError(f"{name}: scores of {layer} of type {scores[layer].dtype} are not allowed; allowed: floating point")
            if scores[layer].isnan().any():
                raise DivergedError(f"{name}: NaN among the scores of {layer} is not allowed; allowed: numbers (-inf too)")
        return {layer: scores[layer] for layer in params}

    def allocate(scores: Scores, density: float, *, floor: int = 0, alive: Mask | None = None) -> Mask:
        mask = criterion.allocate(scores, density, floor=floor, alive=alive)
        _check_tensors(name, "masks", mask, scores)
        for layer, keep in mask.items():
            if keep.dtype != torch.bool:
                raise SpecError(f"{name}: a mask of {layer} of type {keep.dtype} is not allowed; allowed: torch.bool")
            least = min(floor, int(alive[layer].sum()) if alive else keep.numel())
            if int(keep.sum()) < least:
                raise SpecError(f"{name}: {int(keep.sum())} weights kept of {layer} are not allowed; allowed: at least {least}")
        count = keep_count(density, total(mask))
        if kept(mask) != count:
            raise SpecError(f"{name}: {kept(mask)} weights kept are not allowed; allowed: {count}, density {density:g} of {total(mask)}")
        return mask

    return Criterion(score, allocate)


def _check_tensors(name: str, what: str, found: Any, wanted: Mapping[str, Tensor]) -> None:
    """Raise SpecError unless there is a tensor of each shape by each name, and nothing else."""
    if not isinstance(found, dict):
        raise SpecError(f"{name}: {what} in a {type(found).__name__} are not allowed; allowed: a dict of tensors by parameter name")
    if odd := sorted(map(str, found.keys() ^ wanted.keys())):
        there, missing = (" ".join(key for key in odd if (key in wanted) == absent) or "none" for absent in (False, True))
        raise SpecError(f"{name}: {what} too many: {there}, missing: {missing}; allowed: one for each prunable weight")
    for layer, value in found.items():
        shape = tuple(wanted[layer].shape)
        there = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        if there != shape:
            raise SpecError(f"{name}: {what} of {layer} as {there} are not allowed; allowed: a tensor of shape {shape}")


def _check_untouched(name: str, before: Mapping[str, Tensor], network: nn.Module) -> None:
    after = dict(_tensors(network))
    changed = [key for key in before if key not in after or not torch.equal(before[key].nan_to_num(), after[key].nan_to_num())]
    if changed:
        raise SpecError(f"{name}: a changed {changed[0]} is not allowed; allowed: a criterion that leaves the network as it was")


def _tensors(network: nn.Module) -> chain[tuple[str, Tensor]]:
    return chain(network.named_parameters(), network.named_buffers())
