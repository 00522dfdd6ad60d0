"""Masks at a coarser grain than weights: kernels, channels, or weights inside the channels that stay."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from autosparse.models.channels.units import Units, costs_by_weight, price, units_of
from autosparse.models.channels.widths import (
    affordable,
    order_by_rates,
    order_within,
    rates,
    shuffled,
    survival,
    unit_means,
    widths_by_density,
)
from autosparse.models.criteria.contract import Allocate
from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import keep_count, shares_from_top
from autosparse.models.masks.mask import Mask, Scores
from autosparse.models.masks.reparametrized import copied
from autosparse.models.networks.flops import macs
from autosparse.models.specs.grain import RATES, WEIGHTS, Grain


@dataclass(frozen=True)
class Grained:
    """A network and how its scores become masks at a grain; `example` is one input of the network."""

    network: nn.Module
    example: Any
    grain: Grain
    head: bool = True

    @cached_property
    def units(self) -> Units:
        """Raises SpecError where no channel can leave."""
        return units_of(self.network, self.example)

    def cut(self, scores: Scores, share: float, *, allocate: Allocate, again: Callable[[nn.Module], Scores], floor: int = 0) -> Mask:
        """The mask that costs `share`, as nearly from below as whole channels or kernels allow; mixed: exactly that density.

        `allocate` is the method's own way from scores to a mask of weights; `again` scores a network without the channels that left,
        for what a mixed mask keeps inside. Raises CollapseError where one channel per layer costs more than the share.
        """
        if self.grain.grain == "kernels":
            return best_kernels(scores, share, floor=floor)
        if self.grain.grain == "channels":
            return self.channels(scores, share, allocate=allocate)
        wide = self.channels(scores, min(1.0, share / self.grain.inside), allocate=allocate)
        smaller = copied(self.network)
        masks.apply_(smaller, wide)
        return allocate(again(smaller), share, floor=floor, alive=wide)

    def check(self, share: float) -> None:
        """Raise SpecError where no channel can leave, CollapseError where one channel per layer costs more than the share allows."""
        if self.grain.grain != "kernels":
            wide = share if self.grain.grain == "channels" else min(1.0, share / self.grain.inside)
            affordable(self.units, range(len(self.units.group)), self.price, wide)

    @property
    def least(self) -> float:
        """The share of the price that one channel per layer costs."""
        first = torch.zeros(len(self.units.group), dtype=torch.bool)
        first[[self.units.group.tolist().index(group) for group in range(len(self.units.layers))]] = True
        return self.price(first) / self.price(torch.ones_like(first))

    def price(self, stays: Tensor) -> float:
        """What the network costs where these units (units,) stay."""
        return price(self.units, self.costs, stays)

    @cached_property
    def costs(self) -> dict[str, float]:
        """What each tensor costs as a whole; of mixed masks, weights are the cost."""
        cost = self.grain.cost if self.grain.grain == "channels" else WEIGHTS
        return costs_by_weight(macs(self.network, self.example), self.network, cost, head=self.head)

    def channels(self, scores: Scores, share: float, *, allocate: Allocate, alive: Mask | None = None) -> Mask:
        """The mask of whole channels, out of those of `alive`, that costs at most the share; of mixed masks, its weights are the cost.

        `alive` is a mask of whole channels itself. Where widths come from densities, weights are cut by as much as the cost.
        """
        units, means = self.units, unit_means(self.units, survival(scores))
        density = share
        if alive:
            gone = unit_means(units, alive) == 0
            means[gone] = -torch.inf
            density *= masks.density(alive) * sum(self.costs.values()) / self.price(~gone)
        if self.grain.widths == RATES:
            order = order_by_rates(units, means, rates(units, scores))
        elif self.grain.widths == "scores":
            order = means.argsort(descending=True, stable=True).tolist()
        else:
            even = [1.0] * len(units.layers)
            widths = even if self.grain.widths == "uniform" else widths_by_density(units, allocate(scores, density, alive=alive))
            order = order_within(units, means, widths)
        order = [unit for unit in order if means[unit] > -torch.inf]
        stays = affordable(units, order, self.price, share)
        return units.mask(self.network, stays, head=self.head)

    def shuffle(self, mask: Mask, generator: torch.Generator) -> Mask:
        """The structured shuffle: other channels, the same widths. Of kernels: other kernels, as many in each layer."""
        if self.grain.grain == "kernels":
            return {name: _shuffled_kernels(keep, generator) for name, keep in mask.items()}
        return shuffled(self.units, mask, generator)


def best_kernels(scores: Scores, density: float, *, floor: int = 0) -> Mask:
    """Keep whole kernels, the weights between one input and one output, by their mean survival, for at most `density` of all weights.

    What still fits behind the first that does not is taken too, so the count is short by less than the largest kernel. Each layer
    keeps at least min(`floor`, all) kernels. A weight of a linear layer is a kernel.
    """
    means = {name: values.flatten(2).mean(2) if values.dim() > 2 else values for name, values in survival(scores).items()}
    sizes = torch.cat([torch.full((mean.numel(),), scores[name].numel() // mean.numel()) for name, mean in means.items()])
    order = shares_from_top(torch.cat([mean.reshape(-1) for mean in means.values()])).argsort(stable=True)
    if floor:
        promised, start = torch.zeros(len(order), dtype=torch.bool), 0
        for mean in means.values():
            best = mean.reshape(-1).argsort(descending=True, stable=True)[:floor]
            promised[start + best] = True
            start += mean.numel()
        order = torch.cat([order[promised[order]], order[~promised[order]]])
    kept = _fitting(sizes[order], keep_count(density, int(sizes.sum())))
    flat = torch.zeros(len(order), dtype=torch.bool)
    flat[order[kept]] = True
    parts = flat.split([mean.numel() for mean in means.values()])
    return {
        name: part.view(means[name].shape + (1,) * (scores[name].dim() - 2)).expand(scores[name].shape).clone()
        for name, part in zip(scores, parts, strict=True)
    }


def _fitting(sizes: Tensor, most: int) -> Tensor:
    """Which of the sizes (n,) are taken, one after the other, each that still fits."""
    taken = torch.zeros(len(sizes), dtype=torch.bool)
    left, candidates = most, torch.arange(len(sizes))
    while len(candidates) and left > 0:
        candidates = candidates[sizes[candidates] <= left]
        run = candidates[sizes[candidates].cumsum(0) <= left]
        taken[run] = True
        left -= int(sizes[run].sum())
        candidates = candidates[len(run) :]
    return taken


def _shuffled_kernels(keep: Tensor, generator: torch.Generator) -> Tensor:
    rows = keep.reshape(keep.shape[0] * keep.shape[1], -1)
    return rows[torch.randperm(len(rows), generator=generator).to(keep.device)].view(keep.shape)
