"""Logits that depend on the layer before: bounds, gradients through the chain, the bilinear count, trainings."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from autosparse.models.errors import SpecError
from autosparse.models.methods import hard_concrete
from autosparse.models.methods.channel_groups import channel_groups
from autosparse.models.methods.dep_l0 import LogitChain
from autosparse.models.methods.expected_cost import ChannelCost, weight_counts
from autosparse.models.methods.gate_bank import FreeLogits, GateBank, HardConcrete, attach_to_filters
from autosparse.models.methods.registry import parse
from autosparse.models.training.loop import fit
from tests.gated_networks import network, trainer

CPU = torch.device("cpu")


def chain(sizes: Sequence[int] = (3, 5, 4), direction: str = "forward") -> LogitChain:
    return LogitChain(sizes, direction, torch.Generator().manual_seed(4))


def test_logits_stay_within_log_100_and_gates_above_the_floor() -> None:
    one = chain()
    with torch.no_grad():
        for param in one.parameters():
            param.mul_(-1000)
    logits = one().detach()
    assert float(logits.abs().max()) <= math.log(100) + 1e-6
    assert float(hard_concrete.open_probability(logits).min()) == pytest.approx(0.0471, abs=5e-5)


def test_the_chain_by_hand() -> None:
    one = chain((2, 1))
    values = ([[0.1, 0.2], [0.3, -0.4]], [0.0, 0.1], [[0.5, -0.5]], [-0.2])
    with torch.no_grad():
        for param, value in zip(one.parameters(), values, strict=True):
            param.copy_(torch.tensor(value))
    bound = math.log(100)
    first = [bound * math.tanh(0.3), bound * math.tanh(0.0)]
    assert one().tolist() == pytest.approx([*first, bound * math.tanh(0.5 * first[0] - 0.5 * first[1] - 0.2)], abs=1e-5)


def test_it_starts_open_with_the_usual_bounds() -> None:
    one = chain((64, 32))
    assert float(one.links[0].bias.detach().mean()) == pytest.approx(3, abs=0.01)  # type: ignore[union-attr]
    assert 0.12 < float(one.links[1].weight.detach().abs().max()) <= 1 / 8  # type: ignore[union-attr]


def test_without_a_chain_the_gates_are_independent_ones() -> None:
    one, other = network("vgg"), network("vgg")
    groups = channel_groups(one)
    gates = attach_to_filters(one, groups, chain_of_zeros, HardConcrete())
    source = gates.bank.source
    assert isinstance(source, LogitChain)
    biases = torch.cat([link.bias.detach() for link in source.links])  # type: ignore[misc]
    free = attach_to_filters(other, groups, lambda sizes: FreeLogits(math.log(100) * biases.tanh()), HardConcrete())
    cost = ChannelCost(groups, weight_counts(network("vgg"), head=True), CPU)
    images, said = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)), []
    for module, transform in ((one, gates), (other, free)):
        transform.sample(torch.Generator().manual_seed(1))
        said.append(module.train()(images).logsumexp(1).mean() + cost.total(transform.bank.openness()))
    assert float(said[0].detach()) == pytest.approx(float(said[1].detach()), abs=1e-6)


def chain_of_zeros(sizes: Sequence[int]) -> LogitChain:
    one = chain(sizes)
    with torch.no_grad():
        for link in one.links:
            link.weight.zero_()  # type: ignore[operator]
            link.bias.normal_(generator=torch.Generator().manual_seed(2))  # type: ignore[operator]
    return one


@pytest.mark.parametrize("depends", [True, False])
def test_the_last_layers_count_reaches_the_first_link(depends: bool) -> None:
    source = chain() if depends else chain_of_zeros((3, 5, 4))
    GateBank(source, HardConcrete(), (3, 5, 4)).openness()[-1].sum().backward()
    slope = source.links[0].weight.grad
    assert slope is not None
    assert bool(slope.ne(0).any()) is depends  # type: ignore[union-attr]


def test_forward_and_backward_agree_on_symmetric_sizes() -> None:
    forward, backward = (chain((3, 5, 3), direction)().split((3, 5, 3)) for direction in ("forward", "backward"))
    assert all(torch.equal(one, other) for one, other in zip(forward, reversed(backward), strict=True))
    assert not torch.equal(forward[0], backward[0])


class Loop(nn.Module):
    """A residual stream of 4 channels that one convolution reads and writes, between two others."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.loop, self.inner = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 2, 1)
        self.head = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stream = torch.relu(self.first(x))
        return self.head(torch.relu(self.inner(stream + self.loop(stream))).mean((2, 3)))


def test_the_expected_count_is_that_of_40_000_draws() -> None:
    groups = channel_groups(Loop())
    assert [group.size for group in groups] == [4, 2]
    logits = torch.tensor([-2.5, -1.0, 0.0, 2.0, -2.0, 0.5])
    noise = hard_concrete.noise(40_000 * 6, torch.Generator().manual_seed(0)).view(-1, 6)
    stream, inner = (hard_concrete.sample(logits, noise) > 0).double().split((4, 2), 1)
    n, m = stream.sum(1), inner.sum(1)
    drawn = (9 * n + 9 * n * n + n * m + 3 * m).mean()  # first, loop, inner, head
    bank = GateBank(FreeLogits(logits), HardConcrete(), (4, 2))
    counts = weight_counts(Loop(), head=True)
    assert sum(counts.values()) == 36 + 144 + 8 + 6
    assert float(ChannelCost(groups, counts, CPU).total(bank.openness()).detach()) * 194 == pytest.approx(float(drawn), rel=0.01)
    without = float(ChannelCost(groups, counts, CPU, random=False).total(bank.openness()).detach()) * 194
    assert abs(without - float(drawn)) > 0.02 * float(drawn)  # the diagonal of the loop counts


def test_a_higher_penalty_leaves_fewer_weights() -> None:
    ends = []
    for penalty in (0, 0.1, 30):
        one = trainer(f"dep_l0(penalty={penalty},generator_lr=.02,tied=true)", kind="vgg")
        fit(one, on_epoch=lambda report: None)
        ends.append(one.parts.report()["expected_density"])
    assert ends[0] > ends[1] + 0.01
    assert ends[1] > ends[2] + 0.01


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dep_l0(penalty=-1)", "dep_l0.penalty: -1.0 is not allowed; allowed: >= 0"),
        ("dep_l0(direction=up)", "dep_l0.direction: 'up' is not allowed; allowed: forward | backward"),
        ("dep_l0(lam=1)", "dep_l0.lam: 'lam' is not known; known: direction, generator_lr, penalty, tied"),
    ],
)
def test_bad_settings_are_one_line(text: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        parse(text)
    assert str(error.value) == message
