"""What a gated network is expected to keep, by layer and as a whole: of its prunable weights, or of its multiply-adds."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from autosparse.models.masks import mask as masks
from autosparse.models.methods.channel_groups import ChannelGroup


class ChannelCost:
    """Bilinear: a layer keeps the share of its inputs that is open, times the share of its outputs that is open.

    `costs` is what each layer costs dense, by the name of its weight; they are the denominator. Gates of two groups are independent,
    so the product is exact in expectation; where a layer reads and writes the same group, E[open_i open_j] is p_i p_j, and p_i
    for i = j. `random` False is for gates that are numbers, not probabilities.
    """

    def __init__(self, groups: Sequence[ChannelGroup], costs: Mapping[str, float], device: torch.device, *, random: bool = True) -> None:
        written = {site.layer: index for index, group in enumerate(groups) for site in group.sites}
        read = {reader: index for index, group in enumerate(groups) for reader in group.readers}
        layers = [name.rpartition(".")[0] for name in costs]
        none = len(groups)
        reads, writes = ([table.get(layer, none) for layer in layers] for table in (read, written))
        self.names = list(costs)
        self.gated = [name for name, pair in zip(costs, zip(reads, writes, strict=True), strict=True) if pair != (none, none)]
        self.costs = torch.tensor(list(costs.values()), dtype=torch.float32, device=device)
        self._reads, self._writes = torch.tensor(reads, device=device), torch.tensor(writes, device=device)
        self._same = (self._reads == self._writes) & (self._reads < none) if random else torch.zeros_like(self._reads, dtype=torch.bool)

    def shares(self, openness: Sequence[Tensor]) -> Tensor:
        """The expected kept share of each layer (layers,), in the order of `names`."""
        one = openness[0].new_ones(1)
        means = torch.cat([torch.stack([values.mean() for values in openness]), one])
        spread = torch.cat([torch.stack([(values * (1 - values)).mean() / len(values) for values in openness]), 0 * one])
        return means[self._reads] * means[self._writes] + self._same * spread[self._reads]

    def total(self, openness: Sequence[Tensor]) -> Tensor:
        """The expected kept share of the whole network, a scalar."""
        return whole(self.costs, self.shares(openness))


class WeightCost:
    """One gate per prunable weight: a layer keeps the mean of its gates."""

    def __init__(self, costs: Mapping[str, float], device: torch.device) -> None:
        self.names = self.gated = list(costs)
        self.costs = torch.tensor(list(costs.values()), dtype=torch.float32, device=device)

    def shares(self, openness: Sequence[Tensor]) -> Tensor:
        """The expected kept share of each layer (layers,)."""
        return torch.stack([values.mean() for values in openness])

    def total(self, openness: Sequence[Tensor]) -> Tensor:
        """The expected kept share of the whole network, a scalar."""
        return whole(self.costs, self.shares(openness))


Cost = ChannelCost | WeightCost


def whole(costs: Tensor, shares: Tensor) -> Tensor:
    """The mean of `shares`, weighted by `costs`: a sum, not a product of matrices, which autocast would make in bf16."""
    return (costs * shares).sum() / costs.sum()


def weight_counts(network: nn.Module, *, head: bool) -> dict[str, float]:
    """Prunable weights of each layer."""
    return {name: float(param.numel()) for name, param in masks.prunable(network, head=head).items()}
