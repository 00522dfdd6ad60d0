"""L0 gates that depend on each other: one layer's logits are made from those of the layer before (Li and Ji 2021, arXiv 2107.00070)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from autosparse.models import seeding
from autosparse.models.methods.channel_groups import channel_groups, no_channels
from autosparse.models.methods.compact import purge
from autosparse.models.methods.constrained_l0 import densities
from autosparse.models.methods.contract import Method, Parts, Settings, Setup
from autosparse.models.methods.expected_cost import ChannelCost, weight_counts
from autosparse.models.methods.gate_bank import HardConcrete, attach_to_filters
from autosparse.models.methods.simple_controllers import FixedPenalty
from autosparse.models.specs.rules import Range

BOUND = math.log(100)  # of every logit
BIAS, BIAS_SPREAD = 3.0, 0.01  # mean and standard deviation of the first b_l


@dataclass(frozen=True, kw_only=True, slots=True)
class DepL0(Settings):
    """`penalty` is the fixed factor of the expected density in the loss: the published lambda times the prunable weights of the network
    (VGG-16 about 15, ResNet-56 .4 to .9). `direction`: the chain runs from the first layer or from the last. `tied` also
    gates residual streams, which the published code does not.
    """

    penalty: Annotated[float, Range(least=0)] = 10.0
    direction: Literal["forward", "backward"] = "forward"
    generator_lr: Annotated[float, Range(above=0)] = 1e-3
    tied: bool = False


class LogitChain(nn.Module):
    """a_l = log 100 * tanh(A_l a_(l-1) + b_l) with a_0 of ones; from the last layer to the first where `direction` is backward.

    The logits (sum of sizes,) come in the order of `sizes` either way.
    """

    def __init__(self, sizes: Sequence[int], direction: str, draws: torch.Generator) -> None:
        super().__init__()
        self._backward = direction == "backward"
        chain = list(reversed(sizes)) if self._backward else list(sizes)
        self.links = nn.ModuleList(nn.Linear(before, size) for before, size in zip([chain[0], *chain], chain, strict=False))
        with torch.no_grad():
            for link in self.links:
                assert isinstance(link, nn.Linear)
                reach = link.in_features**-0.5  # as nn.Linear starts by itself
                link.weight.copy_(torch.empty(link.weight.shape).uniform_(-reach, reach, generator=draws))
                link.bias.copy_(BIAS + BIAS_SPREAD * torch.randn(link.out_features, generator=draws))

    def forward(self) -> Tensor:
        first = self.links[0]
        assert isinstance(first, nn.Linear)
        logits, chain = first.weight.new_ones(first.in_features), []
        with torch.autocast(first.weight.device.type, enabled=False):
            for link in self.links:
                logits = BOUND * torch.tanh(link(logits))
                chain.append(logits)
        return torch.cat(chain[::-1] if self._backward else chain)


def parts(setup: Setup, settings: DepL0) -> Parts:
    """Gates with the chain that makes their logits, its optimizer, and the penalty."""
    network = setup.network
    groups = channel_groups(network, tied=settings.tied)
    cost = ChannelCost(groups, weight_counts(network, head=setup.head), next(network.parameters()).device)
    draws = seeding.generator(setup.seed, "method", "chain")
    gates = attach_to_filters(network, groups, lambda sizes: LogitChain(sizes, settings.direction, draws), HardConcrete())
    bank = gates.bank
    return Parts(
        transforms=[gates],
        controllers=[FixedPenalty(bank, cost, settings.penalty)],
        own=[torch.optim.Adam(bank.source.parameters(), lr=settings.generator_lr)],
        rewrite=lambda trained, generator: purge(trained),
        facts=lambda: densities(bank, cost),
    )


METHOD = Method(
    settings=DepL0,
    levels=(DepL0(penalty=3.0), DepL0(), DepL0(penalty=30.0)),
    by_density=False,
    parts=parts,
    refuses=no_channels,
    card=(
        "The chain, its start, its Adam and the bilinear count are those of the published code. Ours: gates are drawn once per step, not "
        "per example; the gate of eval mode is the median of the one in training (the published one leaves out the temperature); a gate "
        "acts behind its BatchNorm; the count has the classifier and shortcuts too; levels are for about 1000 steps."
    ),
)
