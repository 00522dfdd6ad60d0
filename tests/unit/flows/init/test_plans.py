"""Plans: numbers worked out by hand, the largest rung that fits, and what is done where none does."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from autosparse.flows.init.draft import batch_size_of, compares, draft, with_augmentation
from autosparse.flows.init.plans import LADDER, METHODS, Plan, budget_of, plan_of
from autosparse.models.arms.plan import planned, sources
from autosparse.models.errors import SpecError
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import override
from autosparse.models.specs.run_specs import DataSpec, NetworkSpec
from autosparse.tasks.planning import steps as kinds
from autosparse.tasks.planning.costs import SERIES, START, Examples, Pace, Rates
from autosparse.tasks.planning.schedule import Place
from autosparse.tasks.planning.words import spoken

NETWORKS = tuple(NetworkSpec(name="resnet8", width=width) for width in (1, 2))
# 50 s for a run, 8 s for a round, 1 s for an arm; nothing else takes any time
FIXED = {**dict.fromkeys((*kinds.KINDS, SERIES), 0.0), START: 50.0, kinds.ROUND: 8.0, kinds.ARM: 1.0}


def drafted(plan: Plan, networks: int = 1, batch_size: int = 32) -> ExperimentSpec:
    return draft(plan, NETWORKS[:networks], DataSpec(name="digits"), batch_size=batch_size, lr=0.1, images=1437, weights=1000)


def planned_for(budget_s: float, step_s: Sequence[float], images: int, slots: int, *, batch_size: int, test_images: int = 0) -> Plan:
    """The plan where steps take so long, and scoring and the scorer nothing; features are ten steps of each seed."""
    spec = drafted(LADDER[0], len(step_s), batch_size)
    train, job = spec.fanout.train, spec.fanout.job
    rates = Rates(
        steps={Pace.of(network, spec.data, train, job): one for network, one in zip(NETWORKS, step_s, strict=False)},
        row=0.0,
        fixed=FIXED,
        scorings={(network.label, method): 0.0 for network in NETWORKS for method in METHODS},
    )
    examples, place = Examples(images, test_images), Place(cpus=slots, gpus=0)
    return plan_of(budget_s, lambda rung: drafted(rung, len(step_s), batch_size), rates, place, examples)


def test_the_first_rung_by_hand() -> None:
    # an epoch is 100 // 10 steps and 30 / 10 / 3 = 1 evaluated, of 0.1 s each: 1.1 s. 50 s for the run, 2 rounds, 10 steps for features;
    # 2 seeds of 3 methods x 2 densities + dense, and 2 tickets: 16 arms on 3 slots, six in a row, each looked at once more as it is used
    plan = planned_for(120, [0.1], 100, 3, batch_size=10, test_images=30)
    assert plan.seconds == pytest.approx(50 + 2 * (8 + 1.1) + 1 + 6 * (1 + 1.1 + 0.1))
    assert plan.fits and plan.train_limit is None and (plan.rounds, plan.epochs, plan.seeds) == (2, 1, 1)


def test_other_targets_have_arms_but_no_rounds_and_no_tickets() -> None:
    plan = planned_for(320, [0.1, 1.0], 100, 1, batch_size=10)
    assert plan.seconds == pytest.approx(50 + 2 * (8 + 1) + 1 + 16 * (1 + 1) + 14 * (1 + 10))


def test_a_source_has_its_rounds_in_turn_however_many_slots_there_are() -> None:
    many = planned_for(1e9, [1.0], 1000, 1000, batch_size=100)
    # 3 seeds of 16 rounds, 160 epochs of 10 s; 3 x (8 x 4 + 1) + 3 x 4 = 111 arms, all at once
    assert many.seconds == pytest.approx(50 + 16 * (8 + 1600) + 30 + (1 + 1600))
    two = planned_for(1e9, [1.0], 1000, 2, batch_size=100)  # the third seed waits for one of the first two
    assert two.seconds == pytest.approx(50 + 2 * 16 * (8 + 1600) + 30 + 56 * (1 + 1600))


@pytest.mark.parametrize("rung", LADDER)
def test_the_fanout_has_seeds_of_its_own(rung: Plan) -> None:
    spec = drafted(rung, 2)
    assert not set(spec.irp.seeds) & set(spec.fanout.seeds) and planned(spec)


@pytest.mark.parametrize("rung", LADDER)
def test_a_comparison_of_criteria_has_two_seeds_at_least_and_no_source(rung: Plan) -> None:
    spec = draft(rung, NETWORKS[:1], DataSpec(name="digits"), batch_size=32, lr=0.1, images=1437, weights=1000, compare=True)
    assert not sources(spec) and len(spec.fanout.seeds) == max(2, rung.seeds)
    assert spec.fanout.methods == tuple(name for name in METHODS if name != "scorer")[: rung.methods]


@pytest.mark.parametrize(
    ("changes", "without"),
    [
        ({"fanout.methods": ["snip", "synflow"]}, True),
        ({"fanout.methods": ["snip"], "fanout.ticket": False, "fanout.seeds": [1]}, True),
        ({"fanout.methods": ["snip"], "fanout.ticket": True}, False),
        ({"fanout.methods": ["snip"], "irp.rounds": 5}, False),
        ({"fanout.methods": ["snip"], "scorer.epochs": 5}, False),
        ({"fanout.methods": ["snip", "autos"]}, False),
        ({"fanout.methods": ["snip"], "fanout.targets.0.methods": ["scorer(grain=channels)"]}, False),
        ({}, False),
    ],
)
def test_an_irp_is_left_out_where_nothing_asked_for_needs_one(changes: dict[str, Any], without: bool) -> None:
    assert compares(override(drafted(LADDER[0]), changes), changes) == without


def test_each_rung_is_larger_than_the_one_below() -> None:
    for below, above in pairwise(LADDER):
        assert above.rounds > below.rounds and above.epochs > below.epochs and above.methods > below.methods and above.seeds >= below.seeds
        assert min(above.densities) <= min(below.densities) and len(above.densities) >= len(below.densities)
    assert LADDER[-1].methods == len(METHODS)


def test_a_larger_budget_never_gives_less() -> None:
    steps = [10**power for power in range(-3, 2, 2)]
    for step_s in steps:
        found = [planned_for(minutes * 60, [step_s], 5000, 4, batch_size=128, test_images=1000) for minutes in range(1, 3000, 400)]
        assert [plan.epochs for plan in found] == sorted(plan.epochs for plan in found)
        assert all(plan.seconds <= 0.8 * minutes * 60 for plan, minutes in zip(found, range(1, 3000, 400), strict=True) if plan.fits)


def test_where_nothing_fits_the_first_rung_takes_fewer_images() -> None:
    # 0.8 x 250 = 200 s, of which 50 + 2 x 8 + 10 + 16 = 92 s are starts and features; a batch costs 2 rounds 4/3 s, 16 arms 5/3 s: 29.3 s
    plan = planned_for(250, [1.0], 10_000, 1, batch_size=100, test_images=10_000)
    assert plan.fits and plan.train_limit == plan.test_limit == 300
    assert plan.seconds == pytest.approx(92 + 3 * (2 * 4 / 3 + 16 * 5 / 3))
    assert (plan.rounds, plan.epochs, plan.methods) == (2, 1, 3)
    few = planned_for(250, [1.0], 10_000, 1, batch_size=100, test_images=250)
    assert few.train_limit == 300 and few.test_limit is None


def test_where_even_that_does_not_fit_it_is_said_and_the_run_is_still_of_use() -> None:
    slow = planned_for(60, [10.0], 10_000, 1, batch_size=100)
    assert not slow.fits and slow.train_limit == 200 and slow.seconds == pytest.approx(82 + 100 + 18 * 20)
    quick = planned_for(60, [0.001], 1000, 1, batch_size=100)  # the starts alone are too long: fewer images would not help
    assert not quick.fits and quick.train_limit is None and quick.seconds == pytest.approx(82 + 0.01 + 0.18)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("2h", 7200), ("1.5h", 5400), ("1d", 86400), ("1h30m", 5400), ("5M", 300)]
)
def test_times_as_people_write_them(text: str, seconds: float) -> None:
    assert budget_of(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "m", "0m", "-5m", "5 weeks", "366d", "5m!", "1e3s", "5 m"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(SpecError, match=r"^--budget: .* is not allowed; allowed: a time such as 90s, 5m, 2h, 1d, at most 365d$"):
        budget_of(text)


def test_spoken() -> None:
    assert [spoken(seconds) for seconds in (75, 180, 750, 7200, 3 * 86400)] == ["75 s", "3 min", "12.5 min", "2 h", "3 days"]


def test_batches_and_shifts_suit_the_images() -> None:
    assert batch_size_of(1437, (1, 8, 8)) == 32 and batch_size_of(50_000, (3, 32, 32)) == 128
    assert batch_size_of(50_000, (3, 224, 224)) == 32 and batch_size_of(10, (3, 8, 8)) == 5 and batch_size_of(1, (3, 8, 8)) == 1
    pads = {side: with_augmentation(DataSpec(name="digits"), (1, side, side)) for side in (2, 8, 32, 224)}
    assert {side: (data.augment, data.pad) for side, data in pads.items()} == {
        2: ("none", 0),
        8: ("shift", 1),
        32: ("shift", 4),
        224: ("shift", 4),
    }
    chosen = DataSpec(name="digits", augment="crop_flip", pad=2)
    assert with_augmentation(chosen, (3, 32, 32)) == chosen
