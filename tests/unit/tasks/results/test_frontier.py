"""Frontiers on paper: interpolation over log(cost), paired differences at equal cost, sentences, and whatever is not there."""

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest

from autosparse.tasks.results.arm_reports import opened
from autosparse.tasks.results.frontier import Frontier, Point, at_equal_cost, from_plain, frontiers
from autosparse.tasks.results.frontier_words import NO_BASELINE, amount, frontier_summary, frontier_table, sentence


def arm(method: str, seed: int, accuracy: float | None, cost: float, density: float | None = 1.0, **changes: Any) -> dict[str, Any]:
    """An arm that pays `cost` in every coin; training takes as many seconds."""
    known = {"target": "net", "dataset": "digits", "method": method, "density": density, "seed": seed, "accuracy": accuracy}
    latency = {"1": {"median": cost, "n": 5}, "32": {"median": cost, "n": 5}}
    counts = {"nonzeros": cost, "parameters": cost, "multiply_adds": cost, "bytes": {"best": cost, "dense": 9e9}, "latency_ms": latency}
    return opened({**known, "training_seconds": cost, "deployed": counts, **changes})


def field(*, narrow: bool = True) -> list[dict[str, Any]]:
    """Two seeds. Narrow networks at costs 100 and 1,000, dense at 10,000, each half a point better in the second seed."""
    base = {"dense": (10_000, 0.8), **({"narrow(share=0.5)": (1000, 0.7), "narrow(share=0.1)": (100, 0.5)} if narrow else {})}
    return [arm(name, seed, accuracy + seed * 0.005, cost) for name, (cost, accuracy) in base.items() for seed in (0, 1)]


def scorings(method: str, *seconds: float | None) -> list[dict[str, Any]]:
    same = {"target": "net", "method": method, "cuts": {}}
    return [opened({**same, "seed": seed, **({} if value is None else {"scoring_seconds": value})}) for seed, value in enumerate(seconds)]


def point(found: Frontier, name: str) -> Point:
    (one,) = [point for point in found.points if point.name == name]
    return one


def verdicts(found: Frontier, key: str = "nonzeros") -> Mapping[str, str | None]:
    return {point.name: point.places[key].verdict for point in found.points}


CURVE = [(10_000.0, 0.8), (100.0, 0.5), (1000.0, 0.7)]


@pytest.mark.parametrize(
    ("cost", "accuracy"),
    [
        (100, 0.5),
        (1000, 0.7),
        (10_000, 0.8),
        (math.sqrt(100 * 1000), 0.6),  # the middle, over the logarithm
        (1000 * 10**0.25, 0.725),
        (99.9, None),
        (10_001, None),
    ],
)
def test_the_baseline_at_equal_cost(cost: float, accuracy: float | None) -> None:
    found = at_equal_cost(CURVE, cost)
    assert found == (None if accuracy is None else pytest.approx(accuracy))


def test_the_baseline_of_one_point_of_two_at_one_cost_and_of_none() -> None:
    assert (at_equal_cost([(5.0, 0.5)], 5.0), at_equal_cost([(5.0, 0.5)], 4.9), at_equal_cost([], 5.0)) == (0.5, None, None)
    assert at_equal_cost([(5.0, 0.5), (5.0, 0.7), (50.0, 0.9)], 5.0) == pytest.approx(0.6)


def test_differences_are_seed_by_seed_at_the_cost_of_each_seed() -> None:
    # narrow of seed 0 has .6 at 100 * sqrt(10) and .7 at 1,000, of seed 1 .005 more
    arms = [*field(), arm("snip", 0, 0.63, math.sqrt(1e5), 0.02), arm("snip", 1, 0.755, 1000, 0.02)]
    (found,) = frontiers(arms, [])
    place = point(found, "snip@0.02").places["nonzeros"]
    assert (place.over.n, place.over.mean, place.over.std) == (2, pytest.approx(0.04), pytest.approx(0.02 / math.sqrt(2)))
    assert place.cost == pytest.approx((math.sqrt(1e5) + 1000) / 2)
    assert place.over.p_value == pytest.approx(1 - 2 * math.atan(4) / math.pi)  # t = 4 with one degree of freedom: Cauchy
    assert place.verdict == "unclear"  # p = .16


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((0.05, 0.05), "above"),
        ((-0.05, -0.05), "below"),
        ((0.009, 0.009), "level"),
        ((0.01, 0.01), "above"),
        ((0.05,), "unclear"),
        ((0.005,), "level"),
    ],
)
def test_verdicts(gains: tuple[float, ...], verdict: str) -> None:
    arms = [*field(), *(arm("snip", seed, 0.7 + 0.005 * seed + gain, 1000, 0.02) for seed, gain in enumerate(gains))]
    (found,) = frontiers(arms, [])
    assert verdicts(found) == {"dense": None, "narrow(share=0.5)": None, "narrow(share=0.1)": None, "snip@0.02": verdict}


def test_nothing_is_extrapolated_and_a_seed_outside_is_left_out() -> None:
    arms = [*field(), arm("snip", 0, 0.9, 50, 0.02), arm("snip", 1, 0.9, 20_000, 0.02)]
    arms += [arm("grda(c=0.1)", 0, 0.9, 50, None), arm("grda(c=0.1)", 1, 0.705, 1000, None)]
    (found,) = frontiers(arms, [])
    assert verdicts(found)["snip@0.02"] == "outside" and point(found, "snip@0.02").places["nonzeros"].over.n == 0
    place = point(found, "grda(c=0.1)").places["nonzeros"]
    assert (place.over.n, place.over.mean, place.verdict) == (1, pytest.approx(0.0), "level")


def test_who_is_on_the_frontier() -> None:
    cheap, same, worse = arm("snip", 0, 0.6, 100, 0.02), arm("synflow", 0, 0.6, 100, 0.02), arm("random", 0, 0.59, 100, 0.02)
    dear, best = arm("snip", 0, 0.6, 200, 0.05), arm("dense", 0, 0.8, 1000)
    (found,) = frontiers([cheap, same, worse, dear, best], [])
    on = {point.name: point.places["bytes"].on_frontier for point in found.points}
    # of two that are equal both are on it; more cost for the same accuracy is beaten by nothing that is better
    assert on == {"dense": True, "snip@0.02": True, "synflow@0.02": True, "random@0.02": False, "snip@0.05": True}
    assert not found.baseline and set(verdicts(found).values()) == {None}


def test_training_seconds_hold_the_scoring_whole_for_every_density() -> None:
    arms = [arm("growth", 0, 0.5, 100, density) for density in (0.1, 0.02)] + [
        arm("snip", 0, 0.5, 100, 0.1),
        arm("ticket", 0, 0.5, 100, 0.1),
    ]
    arms += [arm("grda(c=0.1)", 0, 0.5, 100, None), arm("narrow", 0, 0.5, 100), arm("snip+shuffle", 0, 0.4, 100, 0.1)]
    (found,) = frontiers(arms, [*scorings("growth", 40.0), *scorings("snip", None)], {("net", 0, 0.1): 900.0})
    seconds = {point.name: point.places["seconds"].cost for point in found.points if "seconds" in point.places}
    assert seconds == {"growth@0.1": 140, "growth@0.02": 140, "ticket@0.1": 100, "grda(c=0.1)": 100, "narrow": 100}  # snip's did not say
    assert {point.name: point.irp_seconds for point in found.points if point.irp_seconds} == {"ticket@0.1": 900.0}
    assert "nonzeros" in point(found, "snip@0.1").places


def test_failed_arms_are_counted_and_have_no_point_of_their_own() -> None:
    arms = [*field(), arm("snip", 0, None, 100, 0.02, deployed=None), arm("snip", 1, 0.6, 1000, 0.02), arm("random", 0, None, 100, 0.02)]
    (found,) = frontiers(arms, [])
    one = point(found, "snip@0.02")
    assert (one.n, one.failed, one.std) == (1, 1, None)
    assert "random@0.02" not in verdicts(found)


def test_reports_of_older_runs_have_no_frontier_and_a_part_of_them_no_place() -> None:
    old = [{key: value for key, value in one.items() if key not in ("deployed", "training_seconds")} for one in field()]
    assert frontiers(old, []) == [] == frontiers([], [])
    (found,) = frontiers([*old, arm("snip", 0, 0.5, 100, 0.02)], [])
    assert point(found, "dense").places == {}
    assert not any(point.places for point in found.points if point.in_baseline)


def test_targets_and_data_sets_are_apart() -> None:
    other = [arm("snip", 0, 0.9, 1000, 0.02, target="other"), arm("dense", 0, 0.9, 1000, dataset="cifar")]
    found = frontiers([*field(), *other], [])
    assert [(one.target, one.dataset, one.baseline) for one in found] == [
        ("net", "digits", True),
        ("other", "digits", False),
        ("net", "cifar", False),
    ]


def test_the_order_of_a_table() -> None:
    arms = [arm("snip", 0, 0.5, 1, 0.02), *field(), arm("snip", 0, 0.5, 1, 0.1), arm("random", 0, 0.5, 1, 0.02)]
    (found,) = frontiers(list(reversed(arms)), [])
    names = ["dense", "narrow(share=0.5)", "narrow(share=0.1)", "random@0.02", "snip@0.1", "snip@0.02"]
    assert [point.name for point in found.points] == names


def paying(method: str, density: float, gain: float, **costs: float) -> list[dict[str, Any]]:
    """Arms of two seeds that gain over narrow networks where they pay 1,000, and pay in `costs` otherwise."""
    found = [arm(method, seed, 0.7 + 0.005 * seed + gain, 1000, density) for seed in (0, 1)]
    for one in found:
        one["deployed"] = {**one["deployed"], **costs}
    return found


def test_the_sentence_names_what_is_above_and_the_best() -> None:
    arms = [*field(), *paying("snip", 0.02, 0.03), *paying("snip", 0.05, -0.03), *paying("synflow", 0.02, 0.076, parameters=10_000.0)]
    arms = [
        {**one, "training_seconds": 10_000.0} if one["control"] is None and one["method"] in ("snip", "synflow") else one for one in arms
    ]
    (found,) = frontiers(arms, [*scorings("snip", 0.0, 0.0), *scorings("synflow", 0.0, 0.0)])
    assert sentence(found) == (
        "At equal non-zero weights 2 of 3 sparse networks are above a narrower dense one (best: synflow@0.02, +7.6 points); "
        "at equal bytes 2 of 3 (best: synflow@0.02, +7.6 points); "
        "at equal parameters stored as dense 1 of 3 (best: snip@0.02, +3.0 points); "
        "at equal multiply-adds 2 of 3 (best: synflow@0.02, +7.6 points); "
        "at equal latency of one image 2 of 3 (best: synflow@0.02, +7.6 points); "
        "at equal latency of 32 images 2 of 3 (best: synflow@0.02, +7.6 points); "
        "at equal training seconds none."
    )


def test_the_sentence_where_nothing_is_above_outside_and_without_a_baseline() -> None:
    (found,) = frontiers([*field(), *paying("snip", 0.02, 0.0, nonzeros=5.0)], [])
    assert sentence(found) == (
        "At equal bytes, parameters stored as dense, multiply-adds, latency of one image and latency of 32 images no sparse network is "
        "above a narrower dense one; at equal non-zero weights there is no narrow network to compare with."
    )
    (found,) = frontiers([*field(), *paying("snip", 0.02, 0.05), *paying("snip", 0.01, 0.0, nonzeros=5.0)], [])
    assert sentence(found).startswith(
        "At equal non-zero weights 1 of 1 sparse networks are above a narrower dense one (best: snip@0.02, +5.0 points; 1 not compared);"
    )
    (found,) = frontiers([*field(narrow=False), *paying("snip", 0.02, 0.05)], [])
    assert sentence(found) == NO_BASELINE
    (found,) = frontiers(field(), [])
    assert sentence(found) == "No sparse network says what it costs."


def test_the_table_and_what_is_stored() -> None:
    arms = [*field(), *paying("snip", 0.02, 0.05), arm("ticket", 7, 0.9, 500.0, 0.02)]
    (found,) = frontiers(arms, scorings("snip", 200.0, 200.0), {("net", 7, 0.02): 120.0})
    assert from_plain(json.loads(json.dumps(found.to_plain()))) == found
    table = frontier_table([found])
    assert "## net on digits\n\nAt equal non-zero weights 1 of 1 sparse" in table
    assert "| snip@0.02 | 0.7525 (n=2) | 1,000 +5.0 above |" in table and "| 1,200 " in table
    assert "| ticket@0.02 | 0.9000 (n=1) | 500* other seeds |" in table and table.count("| 120 |") == 1
    assert "| narrow(share=0.1) | 0.5025 (n=2) | 100* |" in table


def test_how_amounts_read() -> None:
    values = (0.3339, 5.0, 99.4, 6146.0, 99_999.0, 308_650.0, 49_120_512.0, 1.5e9)
    assert [amount(value) for value in values] == ["0.334", "5", "99.4", "6,146", "99,999", "309k", "49.1M", "1.5G"]


def test_the_summary_names_the_frontier_and_the_verdicts_by_cost() -> None:
    arms = [*field(), *paying("snip", 0.02, 0.05), *paying("synflow", 0.02, -0.05), arm("ticket", 7, 0.9, 500.0, 0.02)]
    (found,) = frontiers(arms, [])
    line = frontier_summary(found)[0]
    assert line == [
        "non-zeros",
        "narrow(share=0.1) 100, ticket@0.02 500",
        "above: snip@0.02 +5.0\nbelow: synflow@0.02 -5.0\nother seeds: ticket@0.02",
    ]
