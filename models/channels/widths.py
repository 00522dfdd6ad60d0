"""Which units of width stay: an order of all units, and the longest part of it that a network can afford."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from autosparse.models.channels.units import Units
from autosparse.models.errors import CollapseError
from autosparse.models.masks.allocation import shares_from_top
from autosparse.models.masks.mask import Mask, Scores, layer_densities

Price = Callable[[Tensor], float]  # of the units that stay (units,)
FASTEST = 1e3  # no layer narrows faster
TINY = 1e-6  # density of a layer that has none, so that its logarithm is a number


def survival(scores: Scores) -> Scores:
    """Score -> -log(share of all weights that score at least as much), float64: how many factors of e of pruning a weight outlives.

    One scale for every method, whatever its scores are, and that of the labels of an IRP (`scorers/labels.py`); of equal scores the
    lower index is higher.
    """
    flat = torch.cat([score.reshape(-1) for score in scores.values()])
    parts = (-shares_from_top(flat).log()).split([score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for part, (name, score) in zip(parts, scores.items(), strict=True)}


def unit_means(units: Units, values: Mapping[str, Tensor]) -> Tensor:
    """The mean of `values` (parameter -> tensor of its shape) over all weights that write or read a unit, float64 (units,).

    A unit without any of these weights has 0.
    """
    total, count = torch.zeros(2, len(units.group) + 1, dtype=torch.float64)
    for name, value in values.items():
        for axis, found in units.sides.get(name, {}).items():
            rows = value.detach().double().cpu().movedim(axis, 0).flatten(1)
            if len(rows) == len(found):  # the inputs of a grouped convolution are there for all of its groups at once
                places = torch.where(found >= 0, found, len(units.group))
                total.index_add_(0, places, rows.sum(1))
                count.index_add_(0, places, torch.full((len(rows),), float(rows.shape[1]), dtype=torch.float64))
    return (total / count.clamp(min=1))[:-1]


def widths_by_density(units: Units, mask: Mask) -> list[float]:
    """A number per group, in proportion to which the layers of a mask would be wide: sqrt of their density, by geometric mean.

    A layer that keeps the share a of its inputs and b of its outputs has the density a b.
    """
    densities = {name: math.log(max(density, TINY)) for name, density in layer_densities(mask).items()}
    found: list[list[float]] = [[] for _ in units.layers]
    for name, density in densities.items():
        for side in units.sides.get(name, {}).values():
            for group in units.group[side[side >= 0]].unique().tolist():
                found[group].append(density)
    return [math.exp(sum(values) / len(values) / 2) if values else 1.0 for values in found]


def rates(units: Units, survived: Mapping[str, Tensor]) -> list[float]:
    """How fast each group narrows, from what a learned scorer says of its weights: the share of an IRP's rounds that each survives.

    Where a layer's density falls as exp(-rate t) and t goes from 0 to 1 over the rounds, its weights survive (1 - exp(-rate)) / rate of
    them on average, which bisection solves for the rate, between 1 / FASTEST and FASTEST.
    """
    means = unit_means(units, survived)
    found = []
    for group in range(len(units.layers)):
        wanted, low, high = float(means[units.group == group].mean()), 1 / FASTEST, FASTEST
        for _ in range(60):
            rate = math.sqrt(low * high)
            low, high = (rate, high) if -math.expm1(-rate) / rate > wanted else (low, rate)
        found.append(low)
    return found


def order_by_rates(units: Units, scores: Tensor, rates: Sequence[float]) -> list[int]:
    """All units, the one that leaves last first, where the width of a group falls as exp(-rate t / 2): its best units leave last."""
    leaves = -_places(units, scores).log() / torch.tensor(list(rates), dtype=torch.float64)[units.group]
    return leaves.argsort(descending=True, stable=True).tolist()


def order_within(units: Units, scores: Tensor, widths: Sequence[float]) -> list[int]:
    """All units, the one that leaves last first: the best of each group first, groups in proportion to `widths` at any length."""
    wanted = torch.tensor(list(widths), dtype=torch.float64)[units.group]
    return (_places(units, scores) / wanted).argsort(stable=True).tolist()


def _places(units: Units, scores: Tensor) -> Tensor:
    """The share of its group that scores at least as much as each unit (units,)."""
    place = torch.empty(len(units.group), dtype=torch.float64)
    for group in range(len(units.layers)):
        mine = units.group == group
        place[mine] = shares_from_top(scores[mine])
    return place


def affordable(units: Units, order: Sequence[int], price: Price, share: float) -> Tensor:
    """The units (units,) that stay for at most `share` of the price of all: a first part of `order`, then whatever still fits, in order.

    Units that `order` does not name are gone; the first of each group stays in any case. Raises CollapseError where these alone cost more.
    """
    stays, first, seen = torch.zeros(len(units.group), dtype=torch.bool), [], set()
    most = share * price(torch.ones_like(stays)) * (1 + 1e-9)
    for unit in order:
        if (group := int(units.group[unit])) not in seen:
            seen.add(group)
            first.append(unit)
    stays[first] = True
    if price(stays) > most:
        raise CollapseError(f"density: {share:g} is not allowed; allowed: at least the price of one channel per layer")

    def with_first(count: int) -> Tensor:
        chosen = stays.clone()
        chosen[list(order[:count])] = True
        return chosen

    low, high = 0, len(order)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if price(with_first(middle)) <= most else (low, middle - 1)
    stays = with_first(low)
    for unit in order[low:]:
        if not stays[unit]:
            stays[unit] = True
            stays[unit] = price(stays) <= most
    return stays


def shuffled(units: Units, mask: Mask, generator: torch.Generator) -> Mask:
    """The mask with the units of each group permuted: as wide everywhere, other channels, and what lies inside goes along."""
    new = torch.arange(len(units.group) + 1)
    for group in range(len(units.layers)):
        mine = (units.group == group).nonzero().flatten()
        new[mine] = mine[torch.randperm(len(mine), generator=generator)]
    found = {}
    for name, keep in mask.items():
        moved = keep
        for axis, side in units.sides.get(name, {}).items():
            moved = moved.index_select(axis, _moved(side, new).to(keep.device))
        found[name] = moved.clone()
    return found


def _moved(side: Tensor, new: Tensor) -> Tensor:
    """For each index of an axis the index whose entries it gets: that of the unit that takes its place, the n-th for the n-th."""
    indices = torch.arange(len(side))
    for unit in side[side >= 0].unique().tolist():
        indices[side == unit] = (side == int(new[unit])).nonzero().flatten()
    return indices
