"""Drop and grow: what goes, what comes, how many, and what the optimizer forgets."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autosparse.models.errors import SpecError
from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import erk_densities, keep_count
from autosparse.models.methods.contract import Parts, Setup, StepInfo
from autosparse.models.methods.drop_and_grow import Acquire, DropAndGrow, Plan
from autosparse.models.methods.dst_ee import DropGrow, DstEe, acquisition
from autosparse.models.methods.registry import METHODS, level_name, parse
from autosparse.models.seeding import generator
from autosparse.models.specs.run_specs import DataSpec, JobSpec, TrainSpec
from autosparse.models.training.images import ImageSet
from autosparse.models.training.loop import fit
from autosparse.models.training.trainer import Trainer

SPEC = TrainSpec(epochs=6, batch_size=8, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule="onecycle")
DATA = DataSpec(name="digits", mean=(0.5,), std=(0.25,), augment="shift_flip", pad=1)
IDS = ("dst_ee", "rigl", "set")


# ---- one layer, by hand


def line(values: list[float]) -> tuple[nn.Linear, torch.optim.Optimizer]:
    """A network whose one weight is `values`, in one row, with momentum 1 everywhere."""
    network = nn.Linear(len(values), 1, bias=False)
    network.weight.data = torch.tensor([values])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    optimizer.state[network.weight]["momentum_buffer"] = torch.ones(1, len(values))
    return network, optimizer


def info(step: int) -> StepInfo:
    return StepInfo(step=step, total=1000, steps_per_epoch=10, lr=0.1, loss=1.0)


def hand_made(acquire: Acquire, drop_rate: float = 1 / 3) -> tuple[DropAndGrow, nn.Linear, torch.optim.Optimizer, bool]:
    """Six weights, three active, after an update at step 7 that replaces a third of them. The dropped one has the largest gradient."""
    network, optimizer = line([0.5, -0.1, 0.3, 0.0, 0.0, 0.0])
    network.weight.grad = torch.tensor([[0.0, 9.0, 0.0, 0.2, -0.3, 0.1]])
    keep = torch.tensor([[True, True, True, False, False, False]])
    schedule = DropAndGrow({"weight": keep}, Plan(interval=7, drop_rate=drop_rate, end=1e9), acquire)
    schedule.active["weight"] = torch.tensor([[1, 1, 1, 2, 3, 0]], dtype=torch.int32)
    return schedule, network, optimizer, schedule.update(network, optimizer, info(7), generator(0))


@pytest.mark.parametrize(
    ("c", "grown"),
    [
        (0.0, 4),  # .2, .3, .1
        (0.03, 4),  # ln 7 = 1.946; .2 + .0584 / 2.5 = .2234, .3 + .0584 / 3.5 = .3167, .1 + .0584 / .5 = .2168
        (0.1, 5),  # .2778, .3556, .4892
    ],
)
def test_the_smallest_weight_makes_room_for_the_highest_score(c: float, grown: int) -> None:
    schedule, network, optimizer, steps = hand_made(acquisition("exploration", c=c, eps=0.5))
    expected = [0, 2, grown]
    assert schedule.mask["weight"][0].nonzero().flatten().tolist() == expected
    assert network.weight[0].tolist() == pytest.approx([0.5, 0, 0.3, 0, 0, 0])
    momentum = optimizer.state[network.weight]["momentum_buffer"][0]
    assert momentum.tolist() == [float(index not in (1, grown)) for index in range(6)]
    assert schedule.active["weight"][0].tolist() == [count + (index in expected) for index, count in enumerate([1, 1, 1, 2, 3, 0])]
    assert steps is False


def test_facts_by_hand() -> None:
    facts = hand_made(acquisition("exploration", c=0.1, eps=0.5))[0].facts()
    bonus = 0.1 * math.log(7) * (1 / 2.5 + 1 / 3.5 + 1 / 0.5)
    assert facts["score_ratio"] == pytest.approx(bonus / (0.2 + 0.3 + 0.1), rel=1e-5)
    assert facts["exploration_degree"] == 1.0  # the sixth, never active before, was grown
    assert (facts["density"], facts["replaced"]) == (0.5, pytest.approx(1 / 3))
    facts = hand_made(acquisition("gradient", c=0, eps=1))[0].facts()
    assert facts["exploration_degree"] == pytest.approx(5 / 6)
    assert "score_ratio" not in facts


def test_what_was_just_dropped_does_not_come_back_and_no_more_is_dropped_than_can_come() -> None:
    schedule, network, _, _ = hand_made(acquisition("gradient", c=0, eps=1), drop_rate=1.0)
    assert schedule.mask["weight"][0].tolist() == [False] * 3 + [True] * 3
    assert not network.weight.any()
    network, optimizer = line([1.0, 2.0, 3.0])
    network.weight.grad = torch.ones(1, 3)
    schedule = DropAndGrow(
        {"weight": torch.tensor([[True, True, False]])}, Plan(interval=1, drop_rate=1.0, end=1e9), acquisition("random", c=0, eps=1)
    )
    schedule.update(network, optimizer, info(1), generator(0))
    assert schedule.mask["weight"][0].tolist() == [False, True, True]


def test_a_share_too_small_for_a_weight_changes_nothing_and_lets_the_optimizer_step() -> None:
    schedule, network, optimizer, steps = hand_made(acquisition("gradient", c=0, eps=1), drop_rate=0.1)
    assert steps is True
    assert schedule.mask["weight"][0].tolist() == [True] * 3 + [False] * 3
    assert optimizer.state[network.weight]["momentum_buffer"].all()


def test_adam_forgets_both_moments_but_not_its_step() -> None:
    network, _ = line([0.5, -0.1, 0.0])
    optimizer = torch.optim.Adam(network.parameters())
    network.weight.grad = torch.tensor([[1.0, 2.0, 3.0]])
    optimizer.step()
    schedule = DropAndGrow(
        {"weight": torch.tensor([[True, True, False]])}, Plan(interval=1, drop_rate=0.5, end=1e9), acquisition("gradient", c=0, eps=1)
    )
    schedule.update(network, optimizer, info(1), generator(0))
    state = optimizer.state[network.weight]
    assert [bool(value) for value in state["exp_avg"][0]] == [True, False, False]
    assert [bool(value) for value in state["exp_avg_sq"][0]] == [True, False, False]
    assert float(state["step"]) == 1


def test_a_plan_by_hand() -> None:
    plan = Plan(interval=10, drop_rate=0.3, end=75)
    assert [step for step in range(100) if plan.due(step)] == [10, 20, 30, 40, 50, 60, 70]
    assert [plan.share(step) for step in (0, 25, 50, 75)] == pytest.approx([0.3, 0.225, 0.075, 0.0])  # cos 60, 120, 180 degrees


# ---- many updates of one layer


def course(acquire: Acquire, updates: int = 60) -> tuple[DropAndGrow, list[Tensor]]:
    """2,000 weights at 10 %; gradients that mostly stay as they are, active weights that wander. The masks, the first one too."""
    stream = generator(1)
    network, optimizer = line([0.0] * 2000)
    first = torch.zeros(1, 2000, dtype=torch.bool)
    first[0, torch.randperm(2000, generator=stream)[:200]] = True
    schedule = DropAndGrow({"weight": first}, Plan(interval=1, drop_rate=0.5, end=updates + 1), acquire)
    steady, seen = torch.randn(1, 2000, generator=stream), [first]
    for step in range(1, updates + 1):
        network.weight.grad = 0.1 * steady * (1 + 0.05 * torch.randn(1, 2000, generator=stream))
        network.weight.data += torch.randn(1, 2000, generator=stream) * schedule.mask["weight"]
        schedule.update(network, optimizer, info(step), generator(2, step))
        seen.append(schedule.mask["weight"])
    return schedule, seen


def test_counts_never_change_and_coverage_grows_with_c() -> None:
    degrees = []
    for c in (0.0, 0.01, 0.1, 1.0, 1000.0):
        schedule, seen = course(acquisition("exploration", c=c, eps=1.0))
        assert {int(mask.count_nonzero()) for mask in seen} == {200}
        assert torch.equal(schedule.active["weight"], sum(mask.int() for mask in seen))
        degrees.append(schedule.facts()["exploration_degree"])
    assert degrees == sorted(degrees)
    assert degrees[0] < 0.3
    assert degrees[-1] > 0.9


@pytest.mark.parametrize("grow", ["random", "unfired", "gradient"])
def test_counts_never_change_with_other_scores(grow: Any) -> None:
    assert {int(mask.count_nonzero()) for mask in course(acquisition(grow, c=0, eps=1))[1]} == {200}


def test_without_exploration_it_is_the_growth_of_rigl() -> None:
    with_c, without = course(acquisition("exploration", c=0, eps=1))[1], course(acquisition("gradient", c=7, eps=1))[1]
    assert all(torch.equal(left, right) for left, right in zip(with_c, without, strict=True))
    assert not torch.equal(with_c[-1], course(acquisition("exploration", c=0.1, eps=1))[1][-1])


@pytest.mark.parametrize(("grow", "c"), [("exploration", 1e6), ("unfired", 0.0)])
def test_what_was_never_active_comes_first(grow: Any, c: float) -> None:
    _, seen = course(acquisition(grow, c=c, eps=1), updates=20)
    ever, updates = seen[0].clone(), 0
    for before, after in pairwise(seen[1:]):  # ln 1 = 0: the first update has no exploration
        ever |= before
        grown = after & ~before
        assert int((grown & ~ever).count_nonzero()) == min(int(grown.count_nonzero()), int((~ever).count_nonzero()))
        updates += int(grown.count_nonzero()) > 0
    assert updates >= 15


def test_random_growth_looks_at_the_generator_alone() -> None:
    def grown(scale: float, seed: int) -> Tensor:
        network, optimizer = line([1.0] * 50 + [0.0] * 50)
        network.weight.grad = scale * torch.arange(100.0)[None]
        keep = torch.arange(100)[None] < 50
        schedule = DropAndGrow({"weight": keep}, Plan(interval=1, drop_rate=0.5, end=1e9), acquisition("random", c=0, eps=1))
        schedule.update(network, optimizer, info(1), generator(seed))
        return schedule.mask["weight"]

    assert torch.equal(grown(1.0, 3), grown(-5.0, 3))
    assert not torch.equal(grown(1.0, 3), grown(1.0, 4))


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


def trainer(parts_of: Callable[[Setup], Parts], **changes: Any) -> Trainer:
    given = setup(**changes)
    return Trainer(
        network=given.network,
        forward=given.network,
        spec=SPEC,
        data=DATA,
        job=JobSpec(),
        train=images(),
        test=images(12),
        seed=5,
        parts=parts_of(given),
    )


def parts_of(text: str) -> Callable[[Setup], Parts]:
    name, (level, *_) = parse(text)
    return lambda given: METHODS[name].parts(given, level)


@pytest.mark.parametrize("name", IDS)
def test_the_first_mask_is_exact_random_and_filled_as_erk_says(name: str) -> None:
    first = parts_of(name)(setup()).schedule.mask  # type: ignore[union-attr]
    assert masks.kept(first) == keep_count(0.3, 6 * 9 + 36 * 9 + 72)
    wanted = erk_densities({layer: keep.shape for layer, keep in first.items()}, 0.3)
    assert all(abs(int(keep.count_nonzero()) - wanted[layer] * keep.numel()) < 1 for layer, keep in first.items())
    again, other = parts_of(name)(setup()).schedule.mask, parts_of(name)(setup(seed=6)).schedule.mask  # type: ignore[union-attr]
    assert masks.checksum(first) == masks.checksum(again) != masks.checksum(other)


@pytest.mark.parametrize("name", IDS)
def test_a_training_keeps_its_counts_and_changes_its_mask(name: str) -> None:
    one, seen, reports = trainer(parts_of(f"{name}(interval=4)")), [], []
    first = one.parts.schedule.mask  # type: ignore[union-attr]
    sizes = {layer: int(keep.count_nonzero()) for layer, keep in first.items()}

    def after_step(now: Trainer) -> None:
        assert now.mask is not None
        seen.append(masks.checksum(now.mask))
        assert {layer: int(keep.count_nonzero()) for layer, keep in now.mask.items()} == sizes
        assert masks.violations(now.network, now.mask) == 0
        parameters = dict(now.network.named_parameters())
        for layer, keep in now.mask.items():
            assert not now.optimizer.state[parameters[layer]]["momentum_buffer"][~keep].any()

    fit(one, on_epoch=reports.append, after_step=after_step)
    changes = [step for step in range(1, 30) if seen[step] != seen[step - 1]]
    assert set(changes) <= {4, 8, 12, 16, 20} and len(changes) >= 3  # end .75 of 30 steps
    assert reports[-1].facts["density"] == keep_count(0.3, 450) / 450
    assert reports[-1].facts["exploration_degree"] > 0.32
    assert reports[-1].facts["interval"] == 4


def test_the_optimizer_does_not_step_on_an_update() -> None:
    one, before, checked = trainer(parts_of("rigl(interval=4)")), {}, []

    def after_step(now: Trainer) -> None:
        if now.step == 5:  # that was step 4, counted from 0
            assert now.mask is not None
            for name, parameter in now.network.named_parameters():
                stayed = now.mask[name] & (before[name] != 0) if name in now.mask else torch.ones_like(parameter, dtype=torch.bool)
                assert torch.equal(parameter.detach()[stayed], before[name][stayed])
            checked.append(now.step)
        before.update({name: parameter.detach().clone() for name, parameter in now.network.named_parameters()})

    fit(one, on_epoch=lambda report: None, after_step=after_step)
    assert checked == [5]


def test_an_interval_of_its_own_is_a_fortieth_of_the_training() -> None:
    assert parts_of("rigl")(setup(steps_per_epoch=150)).facts() == {"interval": 22}  # 900 steps
    assert parts_of("rigl")(setup()).facts() == {"interval": 1}  # 30 steps
    assert parts_of("rigl(interval=7)")(setup()).facts() == {"interval": 7}


# ---- names and bad input


def test_names_lead_to_settings() -> None:
    assert parse("dst_ee") == ("dst_ee", (DstEe(),))
    assert parse("rigl(end=.5)") == ("rigl", (DropGrow(end=0.5),))
    assert level_name("dst_ee", DstEe(c=0.01, grow="unfired")) == "dst_ee(grow=unfired,c=0.01)"
    assert all(METHODS[name].by_density and METHODS[name].card for name in IDS)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("dst_ee(c=-1)", "dst_ee.c: -1"),
        ("dst_ee(eps=0)", "dst_ee.eps: 0"),
        ("dst_ee(grow=best)", "exploration | gradient | random | unfired"),
        ("rigl(c=1)", "'c' is not known"),
        ("set(drop_rate=1.5)", "set.drop_rate: 1.5"),
        ("set(end=0)", "set.end: 0"),
        ("set(interval=0)", "set.interval: 0"),
    ],
)
def test_settings_that_are_not_allowed(text: str, what: str) -> None:
    with pytest.raises(SpecError) as error:
        parse(text)
    assert what in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "settings", "what"),
    [
        ({"density": None}, DropGrow(), "density: None is not allowed; allowed: > 0 and <= 1"),
        ({"density": 0.005}, DropGrow(), "density: 0.005 is not allowed; allowed: one that keeps a weight in each of the 3 layers"),
        ({}, DropGrow(interval=23), "interval: 23 is not allowed; allowed: < 22.5, the steps with updates"),
        ({"train": replace(SPEC, epochs=1)}, DropGrow(interval=5, end=1.0), "interval: 5 is not allowed; allowed: < 5"),
    ],
)
def test_what_a_method_refuses(changes: dict[str, Any], settings: DropGrow, what: str) -> None:
    said = METHODS["rigl"].refuses(setup(**changes), settings)
    assert said is not None
    assert said.startswith(what)
    assert METHODS["rigl"].refuses(setup(), DropGrow(interval=22)) is None
