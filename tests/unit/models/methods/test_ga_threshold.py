"""Thresholds on weights: gradients by hand, what can come back, the annealing, baking, and whole trainings."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autosparse.models.errors import SpecError
from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import erk_densities, keep_count
from autosparse.models.methods.contract import Parts, Setup, StepInfo
from autosparse.models.methods.ga_threshold import Annealing, GaThreshold, GaTopk, Shape, Str, decay_to
from autosparse.models.methods.registry import METHODS, level_name, parse
from autosparse.models.methods.thresholds import Selection, SoftThreshold
from autosparse.models.seeding import generator
from autosparse.models.specs.run_specs import DataSpec, JobSpec, TrainSpec
from autosparse.models.training.images import ImageSet
from autosparse.models.training.loop import fit
from autosparse.models.training.trainer import Trainer

SPEC = TrainSpec(epochs=4, batch_size=8, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule="onecycle")
DATA = DataSpec(name="digits", mean=(0.5,), std=(0.25,), augment="shift_flip", pad=1)
ENDS = (-6, -1)
IDS = ("ga_threshold", "ga_topk", "str")


# ---- one layer


def soft(s: float, alpha: float, dtype: torch.dtype = torch.float64) -> SoftThreshold:
    return SoftThreshold(s, torch.tensor(alpha, dtype=dtype)).to(dtype)


def str_layer(weight: Tensor, s: Tensor) -> Tensor:
    """STR with the gradients of autograd."""
    return weight.sign() * torch.relu(weight.abs() - s.sigmoid())


def test_the_threshold_by_hand() -> None:
    layer = soft(-math.log(3), 0.5)  # sigmoid = 1/4, its slope 3/16
    weight = torch.tensor([1.0, -0.5, 0.2, -0.1, 0.0], dtype=torch.float64, requires_grad=True)
    out = layer(weight)
    assert out.tolist() == pytest.approx([0.75, -0.25, 0, 0, 0])
    out.backward(torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0], dtype=torch.float64))
    assert weight.grad is not None and layer.s.grad is not None
    assert weight.grad.tolist() == [1, 2, 2, 4, 8]
    assert float(layer.s.grad) == pytest.approx(-3 / 16 * (1 - 2 + 0.5 * (4 - 8)))


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_gradients_are_those_of_a_leaky_formula_that_autograd_can_derive(alpha: float) -> None:
    weight = (0.3 * torch.randn(7, 5, generator=generator(0), dtype=torch.float64)).requires_grad_()
    slope = torch.randn(7, 5, generator=generator(1), dtype=torch.float64)
    layer, s = soft(-1.5, alpha), torch.tensor(-1.5, dtype=torch.float64, requires_grad=True)
    (layer(weight) * slope).sum().backward()
    over = weight.abs() - s.sigmoid()
    leaky = weight.sign() * (over.clamp(min=0) + alpha * over.clamp(max=0))  # not 0 below the threshold, but of these slopes
    wanted = torch.autograd.grad((leaky * slope).sum(), (weight, s))
    assert 5 < int((over < 0).count_nonzero()) < 30
    assert weight.grad is not None and layer.s.grad is not None
    torch.testing.assert_close(weight.grad, wanted[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(layer.s.grad, wanted[1], rtol=0, atol=1e-12)
    assert torch.equal(layer(weight), leaky * (over > 0))


def test_without_a_leak_it_is_str_bit_for_bit() -> None:
    weight = 0.1 * torch.randn(64, 9, generator=generator(0))
    weight[0, :3] = 0.0
    slope, s = torch.randn(64, 9, generator=generator(1)), torch.tensor(-2.5, requires_grad=True)
    layer, mine, theirs = soft(-2.5, 0.0, torch.float32), weight.clone().requires_grad_(), weight.clone().requires_grad_()
    out, wanted = layer(mine), str_layer(theirs, s)
    assert torch.equal(out, wanted)
    out.backward(slope)
    wanted.backward(slope)
    pairs = ((mine.grad, theirs.grad), (layer.s.grad, s.grad))
    assert all(left is not None and right is not None and torch.equal(left, right) for left, right in pairs)
    assert 100 < int((out == 0).count_nonzero()) < 500


@pytest.mark.parametrize(("alpha", "end"), [(0.0, 0.0), (0.1, 1.0), (1.0, 1.0)])
def test_what_is_pruned_comes_back_through_a_leak_alone(alpha: float, end: float) -> None:
    layer, weight = soft(-2.0, alpha), torch.tensor(0.02, dtype=torch.float64, requires_grad=True)  # sigmoid(-2) = .119
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for _ in range(500):
        optimizer.zero_grad()
        (0.5 * (layer(weight) - 1) ** 2).backward()
        optimizer.step()
    assert layer(weight).item() == pytest.approx(end, abs=1e-4)
    assert (weight.item() == 0.02) == (alpha == 0)


def test_a_selection_by_hand() -> None:
    layer = Selection(torch.tensor([True, False, True]), torch.tensor(0.25))
    weight = torch.tensor([1.0, -3.0, 0.5], requires_grad=True)
    layer(weight).backward(torch.tensor([2.0, 4.0, 8.0]))
    assert layer(weight).tolist() == [1.0, 0.0, 0.5]
    assert weight.grad is not None and weight.grad.tolist() == [2.0, 1.0, 8.0]


# ---- alpha and the decay over a training


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ("const", [0.8, 0.8, 0.8, 0.8, 0.0]),
        ("linear", [0.8, 0.6, 0.4, 0.2, 0.0]),
        ("cosine", [0.8, 0.4 * (1 + math.sqrt(0.5)), 0.4, 0.4 * (1 - math.sqrt(0.5)), 0.0]),
        ("sigmoid", [0.8 / (1 + math.exp(-6)), 0.8 / (1 + math.exp(-3)), 0.4, 0.8 / (1 + math.exp(3)), 0.0]),
        ("sigmoid_cosine", [0.8, 0.8 / (1 + math.exp(-3)), 0.4, 0.4 * (1 - math.sqrt(0.5)), 0.0]),
    ],
)
def test_alpha_by_hand(shape: Shape, values: list[float]) -> None:
    annealing = Annealing(0.8, shape, 0.2, 100, torch.device("cpu"))
    assert [annealing.at(step) for step in (0, 20, 40, 60, 80)] == pytest.approx(values)
    assert {annealing.at(step) for step in range(80, 101)} == {0.0}
    for step in range(20):
        annealing.after_step(StepInfo(step=step, total=100, steps_per_epoch=10, lr=0.1, loss=1.0))
    assert float(annealing.alpha) == pytest.approx(values[1])
    assert annealing.facts() == {"alpha": pytest.approx(values[1])}


def test_weight_decay_alone_takes_a_parameter_where_it_was_sent() -> None:
    s = torch.tensor(-8.0, requires_grad=True)
    rates = [(0.1, 0.9)] * 500
    optimizer = torch.optim.SGD([s], lr=0.1, momentum=0.9, weight_decay=decay_to(-8.0, -2.0, rates))
    for _ in rates:
        s.grad = torch.zeros(())
        optimizer.step()
    assert s.item() == pytest.approx(-2.0, abs=0.1)
    assert decay_to(-8.0, -2.0, rates) == pytest.approx(math.log(4) / 500)
    assert decay_to(-8.0, -8.0, rates) == 0


# ---- in a training


def images(count: int = 40) -> ImageSet:
    stream = torch.Generator().manual_seed(1)
    return ImageSet(torch.randint(0, 256, (count, 1, 4, 4), generator=stream, dtype=torch.uint8), torch.arange(count) % 3)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251
        layers = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.Flatten(), nn.Linear(24, 3)
        return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def setup(**changes: Any) -> Setup:
    given = {"network": network(), "train": SPEC, "density": 0.3, "head": True, "image_shape": (1, 4, 4), "steps_per_epoch": 5, "seed": 5}
    return Setup(**{**given, **changes})


def parts_of(text: str) -> Callable[[Setup], Parts]:
    name, (level, *_) = parse(text)
    return lambda given: METHODS[name].parts(given, level)


def trainer(text: str, **changes: Any) -> Trainer:
    given = setup(**changes)
    parts = parts_of(text)(given)
    return Trainer(
        network=given.network,
        forward=given.network,
        spec=given.train,
        data=DATA,
        job=JobSpec(),
        train=images(),
        test=images(12),
        seed=5,
        parts=parts,
    )


def run(text: str, **changes: Any) -> tuple[Trainer, list[dict[str, float]]]:
    one, facts = trainer(text, **changes), []
    fit(one, on_epoch=lambda report: facts.append(report.facts))
    return one, facts


@pytest.mark.parametrize("text", ["ga_threshold(s_end=-.5)", "ga_topk", "str(s_end=-.5)"])
def test_baking_leaves_a_plain_network_with_the_same_outputs(text: str) -> None:
    one, facts = run(text)
    inputs = torch.randn(6, 1, 4, 4, generator=generator(3))
    with torch.no_grad():
        wanted = one.network.eval()(inputs)
        one.parts.transforms[0].bake(one.network)
        assert torch.equal(one.network(inputs), wanted)
    plain = network()
    assert [name for name, _ in one.network.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert list(one.network.state_dict()) == list(plain.state_dict())
    assert [type(module) for module in one.network.modules()] == [type(module) for module in plain.modules()]
    weights = masks.prunable(one.network)
    kept = sum(int(weight.count_nonzero()) for weight in weights.values())
    assert facts[-1]["density"] == kept / 450 < 1
    assert weights["3.weight"].is_contiguous(memory_format=torch.channels_last)


def test_without_a_leak_a_training_is_that_of_str() -> None:
    ends = [run(text)[0].network.state_dict() for text in ("ga_threshold(alpha=0)", "str()", "ga_threshold(schedule=const)")]
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())
    assert not all(torch.equal(tensor, ends[2][name]) for name, tensor in ends[0].items())


def test_thresholds_rise_as_far_as_they_are_sent_and_densities_fall() -> None:
    ends = [run(f"ga_threshold(s_init=-6,s_end={end},threshold_lr=1e-6)", train=replace(SPEC, epochs=16))[1][-1] for end in ENDS]
    for facts, end in zip(ends, ENDS, strict=True):
        assert facts["least_threshold"] == pytest.approx(1 / (1 + math.exp(-end)), rel=0.2)
        assert facts["largest_threshold"] == pytest.approx(facts["least_threshold"], rel=1e-3)
        assert facts["alpha"] == 0
        assert facts["empty_layers"] == 0
    densities = [facts["density"] for facts in ends]
    assert densities[0] > 0.9 and densities[0] - densities[1] > 0.3


def test_the_loss_moves_a_threshold_where_its_learning_rate_lets_it() -> None:
    moved = [run(f"ga_threshold(s_init=-4,s_end=-4,threshold_lr={rate})")[1][-1] for rate in (1e-6, 1)]
    spread = [facts["largest_threshold"] - facts["least_threshold"] for facts in moved]
    assert spread[0] < 1e-6 < 1e-4 < spread[1]


def test_thresholds_follow_the_learning_rate_and_momentum_of_the_step() -> None:
    one, seen = trainer("ga_threshold(threshold_lr=.5)"), []

    def look(now: Trainer) -> None:
        group = now.parts.own[0].param_groups[0]
        seen.append((now.optimizer.param_groups[0]["lr"], group["lr"], now.optimizer.param_groups[0]["momentum"], group["momentum"]))

    own = one.parts.own[0]
    own.register_step_pre_hook(lambda *_: look(one))
    fit(one, on_epoch=lambda report: None)
    assert len(seen) == 20 and len({lr for lr, *_ in seen}) > 10
    assert all(scaled == pytest.approx(lr / 2) and momentum == own_momentum for lr, scaled, momentum, own_momentum in seen)


@pytest.mark.parametrize("name", IDS)
def test_the_decay_of_raw_weights_is_a_setting_and_the_rest_has_that_of_the_training(name: str) -> None:
    one = trainer(f"{name}(weight_decay=.01)")
    groups = one.optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.01, 5e-4]
    named = {id(parameter): name for name, parameter in one.network.named_parameters()}
    assert [named[id(parameter)] for parameter in groups[0]["params"]] == [f"{n}.parametrizations.weight.original" for n in (0, 3, 5)]
    own = {id(parameter) for optimizer in one.parts.own for group in optimizer.param_groups for parameter in group["params"]}
    assert own | {id(parameter) for group in groups for parameter in group["params"]} == set(named)
    assert trainer(name).optimizer.param_groups[0]["weight_decay"] == 0


def test_top_k_keeps_the_largest_of_each_layer_in_every_step() -> None:
    one, chosen = trainer("ga_topk"), []
    wanted = erk_densities({"0": (6, 1, 3, 3), "3": (6, 6, 3, 3), "5": (3, 24)}, 0.3)

    def after_step(now: Trainer) -> None:
        keeps = {name: module.parametrizations.weight[0].keep for name, module in now.network.named_children() if name in wanted}  # type: ignore
        assert sum(int(keep.count_nonzero()) for keep in keeps.values()) == keep_count(0.3, 450)
        assert all(abs(int(keep.count_nonzero()) - wanted[name] * keep.numel()) < 1 for name, keep in keeps.items())
        chosen.append(masks.checksum(keeps))

    before = {name: module.weight.detach().clone() for name, module in network().named_children() if name in wanted}
    for name, module in one.network.named_children():
        if name in wanted:
            keep = module.parametrizations.weight[0].keep  # type: ignore
            assert before[name].abs()[keep].min() >= before[name].abs()[~keep].max()
    fit(one, on_epoch=lambda report: None, after_step=after_step)
    assert len(set(chosen)) > 3


# ---- names and bad input


def test_names_lead_to_settings() -> None:
    name, levels = parse("ga_threshold")
    assert name == "ga_threshold" and len(levels) == 3
    assert [parse(level_name(name, level)) for level in levels] == [(name, (level,)) for level in levels]
    assert parse("str(s_end=-2)") == ("str", (Str(s_end=-2.0),))
    assert parse("ga_topk(schedule=linear)") == ("ga_topk", (GaTopk(schedule="linear"),))
    assert [METHODS[name].by_density for name in IDS] == [False, True, False]
    assert all("unverified" in METHODS[name].card for name in ("ga_threshold", "ga_topk"))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("ga_threshold(alpha=1.5)", "ga_threshold.alpha: 1.5"),
        ("ga_threshold(schedule=exp)", "const | linear | cosine | sigmoid | sigmoid_cosine"),
        ("ga_threshold(last=1)", "ga_threshold.last: 1"),
        ("ga_threshold(s_init=-3200)", "ga_threshold.s_init: -3200"),
        ("ga_threshold(s_end=0)", "ga_threshold.s_end: 0"),
        ("str(s_init=-2,s_end=-3)", "str.s_end: -3"),
        ("str(alpha=.1)", "'alpha' is not known"),
        ("ga_topk(weight_decay=-1)", "ga_topk.weight_decay: -1"),
        ("ga_threshold(threshold_lr=0)", "ga_threshold.threshold_lr: 0"),
    ],
)
def test_settings_that_are_not_allowed(text: str, what: str) -> None:
    with pytest.raises(SpecError) as error:
        parse(text)
    assert what in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("density", "what"), [(None, "density: None"), (0.005, "a weight in each of the 3 layers")])
def test_top_k_refuses_densities(density: float | None, what: str) -> None:
    said = METHODS["ga_topk"].refuses(setup(density=density), GaTopk())
    assert said is not None and what in said
    with pytest.raises(SpecError) as error:
        METHODS["ga_topk"].parts(setup(density=density), GaTopk())
    assert str(error.value) == said
    assert METHODS["ga_topk"].refuses(setup(), GaTopk()) is None
    assert METHODS["ga_threshold"].refuses(setup(density=None), GaThreshold()) is None
