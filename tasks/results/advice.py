"""What a run says that a person should do: the best method at each density, beside a narrower dense network, and how small it gets."""

import statistics
from collections.abc import Sequence

from autosparse.models.specs.run_specs import DENSE
from autosparse.tasks.results.arm_reports import Report
from autosparse.tasks.results.choice import Choice, choices
from autosparse.tasks.results.frontier import OUTSIDE, UNPAIRED, Frontier, Point
from autosparse.tasks.results.frontier_words import amount
from autosparse.tasks.results.measured import gain

SMALLER = 1.05  # times fewer parameters from which on a network counts as smaller
IMAGES = "32"  # at a time, of the latency that is told


def advice(arms: Sequence[Report], found: Sequence[Frontier], run: str) -> list[str]:
    """Lines for each target and density: the choice, what it gains at equal non-zero weights, what is left of the dense network.

    At the end stands the command that writes the smallest of these networks. Empty where no arm has a value.
    """
    lines, smallest = [], (0.0, "")
    for choice in choices(arms):
        points = {point.name: point for point in _points(found, choice)}
        point, dense = points.get(f"{choice.best}@{choice.density:g}"), points.get(DENSE)
        beside = f"; dense {choice.dense:.3f}" if choice.dense is not None else ""
        lines.append(
            f"{choice.target} on {choice.dataset}, density {choice.density:g}: {choice.best}, "
            f"{choice.metric.name} {choice.value:.3f} (n={choice.n}{beside}), {choice.sure}"
        )
        if point and (said := _beside_narrow(choice, point)):
            lines.append(f"  {said}")
        if point and dense and (times := _times(point, dense)) > SMALLER:
            lines.append(f"  {_smaller(point, dense, times)}{_faster(choice, arms)}")
            smallest = max(smallest, (times, choice.arm))
    return [*lines, f"autosparse compact {run} {smallest[1]} --out small"] if smallest[1] else lines


def _points(found: Sequence[Frontier], choice: Choice) -> Sequence[Point]:
    return next((one.points for one in found if (one.target, one.dataset) == (choice.target, choice.dataset)), ())


def _beside_narrow(choice: Choice, point: Point) -> str:
    """What it gains over a narrower dense network of as many non-zero weights; empty where there is none."""
    place = point.places.get("nonzeros")
    if place is None or place.verdict in (None, OUTSIDE, UNPAIRED) or place.over.mean is None:
        return ""
    sure = "" if place.verdict in ("above", "below") else f", {place.verdict}"
    return f"{gain(choice.metric, place.over.mean, 1)} beside a narrower dense network of as many non-zero weights (n={place.over.n}{sure})"


def _times(point: Point, dense: Point) -> float:
    """How many times fewer parameters are stored than of the dense network; 1 where that is not known."""
    here, there = point.places.get("parameters"), dense.places.get("parameters")
    return there.cost / here.cost if here and there else 1.0


def _smaller(point: Point, dense: Point, times: float) -> str:
    """Parameters and multiply-adds of the network without dead channels, beside the dense one's."""
    more = f", {_of(point, dense, 'multiply_adds')} multiply-adds" if "multiply_adds" in point.places else ""
    return f"{times:.1f} times fewer parameters once the dead channels are gone ({_of(point, dense, 'parameters')}){more}"


def _faster(choice: Choice, arms: Sequence[Report]) -> str:
    """How many times faster it answers than the dense network, measured in turns; empty for reports that do not say."""
    where = (choice.target, choice.dataset, choice.best, choice.density)
    mine = [arm for arm in arms if (arm["target"], arm["dataset"], arm["method"], arm["density"]) == where and not arm["control"]]
    measured = [one for arm in mine if (one := (arm.get("deployed") or {}).get("latency_ms", {}).get(IMAGES))]
    times = [one["dense"] / one["median"] for one in measured if "dense" in one]
    return f", {statistics.fmean(times):.1f} times the speed on {IMAGES} images at once (n={len(times)})" if times else ""


def _of(point: Point, dense: Point, key: str) -> str:
    return f"{amount(point.places[key].cost)} of {amount(dense.places[key].cost)}"
