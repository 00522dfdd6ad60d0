"""What a run says that a person should do: the best method at each density, beside a narrower dense network, and how small it gets."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autosparse.models.specs.grain import number_of
from autosparse.models.specs.run_specs import DENSE
from autosparse.tasks.results.arm_reports import Report
from autosparse.tasks.results.choice import Choice, choices
from autosparse.tasks.results.frontier import OUTSIDE, UNPAIRED, Frontier, Point
from autosparse.tasks.results.frontier_words import amount
from autosparse.tasks.results.measured import gain

SMALLER = 1.05  # times fewer parameters from which on a network counts as smaller
IMAGES = "32"  # at a time, of the latency that is told


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A choice and what it is worth, in words: what it gains at equal non-zero weights, and what is left without the dead channels.

    Words are empty where nothing is known or nothing gets smaller. `times`: as many times fewer parameters than the dense network has.
    """

    choice: Choice
    beside: str
    smaller: str
    times: float

    @property
    def line(self) -> str:
        """The choice as a line of text."""
        one = self.choice
        beside = f"; dense {one.dense:.3f}" if one.dense is not None else ""
        reached = f"{one.metric.name} {one.value:.3f} (n={one.n}{beside})"
        return f"{one.target} on {one.dataset}, {number_of([one.best])} {one.density:g}: {one.best}, {reached}, {one.sure}"


def advised(arms: Sequence[Report], found: Sequence[Frontier]) -> list[Advice]:
    """One for each choice. Empty where no arm has a value."""
    return [_advised(choice, arms, {point.name: point for point in _points(found, choice)}) for choice in choices(arms)]


def _advised(choice: Choice, arms: Sequence[Report], points: Mapping[str, Point]) -> Advice:
    point, dense = points.get(f"{choice.best}@{choice.density:g}"), points.get(DENSE)
    times = _times(point, dense) if point and dense else 1.0
    smaller = f"{_smaller(point, dense, times)}{_faster(choice, arms)}" if point and dense and times > SMALLER else ""
    return Advice(choice=choice, beside=_beside_narrow(choice, point) if point else "", smaller=smaller, times=times)


def lines(found: Sequence[Advice], run: str) -> list[str]:
    """What a terminal shows; at the end the command that writes the smallest of these networks."""
    told = [line for one in found for line in (one.line, *(f"  {words}" for words in (one.beside, one.smaller) if words))]
    smallest = max(found, key=lambda one: one.times, default=None)
    return [*told, f"autosparse compact {run} {smallest.choice.arm} --out small"] if smallest and smallest.smaller else told


def opening(found: Sequence[Advice]) -> str:
    """One sentence on the smallest network of the choices; empty without any."""
    if not found:
        return ""
    one = max(found, key=lambda advice: (advice.times, -advice.choice.density))
    chosen = one.choice
    several = len({(other.choice.target, other.choice.dataset) for other in found}) > 1
    where = f"On {chosen.target}, {chosen.dataset}: at" if several else "At"
    beside = f" (dense {chosen.dense:.3f})" if chosen.dense is not None else ""
    smaller = f" with {one.times:.1f} times fewer parameters" if one.smaller else ""
    reached = f"reaches {chosen.metric.name} {chosen.value:.3f}{beside}{smaller}"
    return f"{where} {number_of([chosen.best])} {chosen.density:g} {chosen.best} {reached}."


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
