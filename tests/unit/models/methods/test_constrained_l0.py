"""Training under a constraint on the expected density: multipliers on paper, a toy problem, trainings."""

import math

import pytest
import torch
from torch import Tensor, nn

from autosparse.models.errors import SpecError
from autosparse.models.methods import hard_concrete
from autosparse.models.methods.constrained_l0 import METHOD, ConstrainedL0, lowest_logit
from autosparse.models.methods.contract import StepInfo
from autosparse.models.methods.dual_ascent import DualAscent
from autosparse.models.methods.expected_cost import WeightCost
from autosparse.models.methods.gate_bank import FreeLogits, GateBank, HardConcrete
from autosparse.models.methods.registry import parse
from autosparse.models.methods.simple_controllers import Clamp, OpenDecay
from autosparse.models.seeding import generator
from autosparse.models.training.loop import fit
from tests.gated_networks import network, setup_for, trainer

INFO = StepInfo(step=0, total=1, steps_per_epoch=1, lr=0.1, loss=0.0)


@pytest.mark.parametrize(("restarts", "last"), [(True, [0.0, 0.0]), (False, [0.03, 0.0])])
def test_multipliers_climb_by_the_violation_and_start_again_when_the_constraint_holds(restarts: bool, last: list[float]) -> None:
    shares = torch.tensor([0.5, 0.1], requires_grad=True)
    dual = DualAscent(lambda: shares, torch.tensor([0.3, 0.3]), lr=0.1, restarts=restarts)
    for expected in (0.02, 0.04):
        dual.after_step(INFO)
        assert dual.multipliers.tolist() == pytest.approx([expected, 0])
    term = dual.loss_term()
    assert float(term.detach()) == pytest.approx(0.04 * 0.2)
    term.backward()
    assert shares.grad is not None
    assert shares.grad.tolist() == pytest.approx([0.04, 0])
    assert dual.facts() == {"violation": pytest.approx(0.2), "multiplier": pytest.approx(0.04)}
    with torch.no_grad():
        shares.fill_(0.2)
    dual.after_step(INFO)
    assert dual.multipliers.tolist() == pytest.approx(last)


def test_weight_decay_counts_with_the_probability_of_the_gate_and_gives_it_no_gradient() -> None:
    weight = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    bank = GateBank(FreeLogits(torch.full((2,), hard_concrete.logit_at(0.25))), HardConcrete(), [2])
    term = OpenDecay(bank, [(weight, 0)], 0.1).loss_term()
    assert float(term.detach()) == pytest.approx(0.05 * 0.25 * (5 + 25))
    term.backward()
    assert weight.grad is not None
    assert weight.grad.flatten().tolist() == pytest.approx([0.1 * 0.25 * value for value in (1, 2, 3, 4)])
    assert all(param.grad is None for param in bank.parameters())


def toy(target: float, clamp: float) -> tuple[Tensor, Tensor, float, float]:
    """400 gates that each may keep a signal: the gates, the signals, the expected density and the multiplier after 1000 steps."""
    draws = torch.Generator().manual_seed(0)
    signal = torch.randn(400, generator=draws) * 1.5
    source = FreeLogits(torch.full((400,), 0.8))
    bank = GateBank(source, HardConcrete(), [400])
    cost = WeightCost({"toy": 400.0}, torch.device("cpu"))
    dual = DualAscent(lambda: cost.shares(bank.openness()), torch.tensor([target]), lr=1.0)
    limit = Clamp(source.logits, clamp, -math.log(0.01))
    optimizer = torch.optim.Adam([source.logits], lr=0.05)
    for _ in range(1000):
        bank.draw(draws)
        optimizer.zero_grad()
        loss = ((1 - bank()[0]) * signal).square().mean() + dual.loss_term()
        loss.backward()
        optimizer.step()
        limit.after_step(INFO)
        dual.after_step(INFO)
    bank.eval()
    return bank()[0].detach(), signal.abs(), float(cost.total(bank.openness()).detach()), float(dual.multipliers.max())


@pytest.mark.parametrize("target", [0.1, 0.3, 0.6])
def test_a_separable_problem_ends_at_its_target_with_the_strong_signals(target: float) -> None:
    gates, signal, density, multiplier = toy(target, hard_concrete.logit_at(target / 4))
    assert density == pytest.approx(target, abs=0.02)
    assert multiplier >= 0
    assert float(signal[gates > 0].mean()) > 2 * float(signal[gates == 0].mean())


def test_below_the_floor_of_the_clamp_a_target_is_not_reached() -> None:
    assert toy(0.03, math.log(0.01))[2] >= 0.0471
    assert 0.03 <= toy(0.03, hard_concrete.logit_at(0.03 / 4))[2] < 0.0465


def test_a_target_of_one_needs_no_multiplier() -> None:
    assert toy(1.0, math.log(0.01))[2:] == (pytest.approx(1, abs=0.02), 0)


def test_the_clamp_is_lowered_for_densities_below_a_tenth_if_it_may_be() -> None:
    assert lowest_logit(ConstrainedL0(), 0.1) == math.log(0.01)
    assert lowest_logit(ConstrainedL0(lower_clamp=False), 0.02) == math.log(0.01)
    low = torch.tensor(lowest_logit(ConstrainedL0(), 0.02))
    assert float(hard_concrete.open_probability(low)) == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("settings", "density", "floor"),
    [
        (ConstrainedL0(unit="weight", lower_clamp=False), 0.04, "0.0471"),
        (ConstrainedL0(unit="weight", lower_clamp=False, scope="layer"), 0.04, "0.0471"),
        # 36 of the stem, 32 and 128 of shortcuts, 48 of the head are never gated: 244 of 4,852; the others at .05 / 4
        (ConstrainedL0(tied=False), 0.05, f"{(244 + 4608 * 0.0125) / 4852:.3g}"),
    ],
)
def test_densities_below_the_floor_are_refused_before_training(settings: ConstrainedL0, density: float, floor: str) -> None:
    message = METHOD.refuses(setup_for(network("resnet"), density=density), settings)
    assert message is not None
    assert message.startswith(f"density: {density} is not allowed; allowed: >= {floor}, where all gates are at the clamp")
    assert "\n" not in message


def test_reachable_densities_are_not_refused() -> None:
    for settings, density in ((ConstrainedL0(), 0.02), (ConstrainedL0(unit="weight"), 0.01), (ConstrainedL0(tied=False), 0.1)):
        assert METHOD.refuses(setup_for(network("resnet"), density=density), settings) is None


def test_without_channels_or_density_it_is_refused() -> None:
    alone = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    assert "channels that can be removed" in str(METHOD.refuses(setup_for(alone, density=0.5), ConstrainedL0()))
    assert METHOD.refuses(setup_for(alone, density=0.5), ConstrainedL0(unit="weight")) is None
    assert "density: None" in str(METHOD.refuses(setup_for(alone), ConstrainedL0()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("constrained_l0(unit=block)", "constrained_l0.unit: 'block' is not allowed; allowed: filter | weight"),
        ("constrained_l0(gate_lr=0)", "constrained_l0.gate_lr: 0.0 is not allowed; allowed: > 0"),
        ("constrained_l0(clamp=.5)", "constrained_l0.clamp: 0.5 is not allowed; allowed: > 0 and < 0.5"),
        ("constrained_l0(restarts=1)", "constrained_l0.restarts: 1 is not allowed; allowed: a value of type bool"),
    ],
)
def test_bad_settings_are_one_line(text: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        parse(text)
    assert str(error.value) == message


@pytest.mark.parametrize("settings", ["unit=filter", "unit=weight", "scope=layer", "decay=plain,restarts=false"])
def test_a_training_goes_towards_its_density(settings: str) -> None:
    one, seen = trainer(f"constrained_l0({settings},gate_lr=.4,dual_lr=5)", density=0.3), []
    fit(one, on_epoch=lambda report: seen.append(report.facts))
    assert set(seen[0]) == {"expected_density", "density", "multiplier", "violation"}
    start = float(hard_concrete.open_probability(torch.tensor(math.log(0.7 / 0.3)))) - 0.3
    assert seen[-1]["violation"] < 0.5 * start
    assert seen[-1]["violation"] < seen[0]["violation"]


def test_gates_have_their_own_optimizer_and_no_weight_decay() -> None:
    one = trainer("constrained_l0()", density=0.3)
    (logits,) = one.parts.own[0].param_groups[0]["params"]
    assert one.parts.own[0].param_groups[0]["weight_decay"] == 0
    decays = {id(param): group["weight_decay"] for group in one.optimizer.param_groups for param in group["params"]}
    named = dict(one.network.named_parameters())
    assert id(logits) not in decays
    assert len(decays) == len(named) - 1
    assert decays[id(named["stages.0.0.conv1.weight"])] == 0  # its decay is in the loss
    assert decays[id(named["head.weight"])] == 5e-4


def test_one_draw_serves_all_passes_until_the_next() -> None:
    one = trainer("constrained_l0()", density=0.3)
    images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    gates = one.parts.transforms[0]
    one.network.train()
    said = []
    for step in (1, 1, 2):
        gates.sample(generator(5, "method", step))
        said += [one.network(images).detach(), one.network(images).detach()]
    assert all(torch.equal(said[0], other) for other in said[1:4])
    assert not torch.equal(said[0], said[4])
