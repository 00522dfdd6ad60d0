"""What a person gets over what they pay: which points are on the frontier, and whether they beat a narrower dense network of equal cost.

Pure functions of arm and scoring reports. A point is a method at one density, on one target and data set; controls are none.
"""

import bisect
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autosparse.models.methods.names import family
from autosparse.models.specs.grain import NARROW
from autosparse.models.specs.run_specs import DENSE, TICKET
from autosparse.models.training.objective import ACCURACY, Metric
from autosparse.tasks.results.arm_reports import Report, arm_of
from autosparse.tasks.results.costs import COINS, Costs, costs_of, scoring_seconds
from autosparse.tasks.results.measured import metric_among, metric_of, stored, value_of
from autosparse.tasks.results.paired import Paired, paired
from autosparse.tasks.results.verdicts import standing_of

OUTSIDE, UNPAIRED = "outside", "other seeds"
VERDICTS = {"ahead": "above", "level": "level", "behind": "below", "unclear": "unclear", "open": OUTSIDE}
Curve = list[tuple[float, float]]  # cost and value
Irp = Mapping[tuple[str, int, float], float]  # (target, seed, density) of a ticket -> wall seconds of its IRP


def is_reference(method: str) -> bool:
    """Whether it is dense or a narrower dense network, of which the baseline is made."""
    return method == DENSE or family(method) == NARROW


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a point stands by one kind of cost; `cost` is the mean over its seeds.

    `over` is what it gains over the narrow networks at equal cost, seed by seed. `verdict`: above, level, below or unclear, as
    `verdicts.standing` has it; outside where no seed has narrow networks on both sides of the cost, other seeds where they have none in
    common; None where there is no baseline, and for the baseline itself.
    """

    cost: float
    on_frontier: bool
    over: Paired
    verdict: str | None


@dataclass(frozen=True, kw_only=True)
class Point:
    """Mean of the metric over `n` seeds and its standard deviation (n - 1); `failed` seeds have none.

    `irp_seconds`: mean wall seconds of the IRP that made a ticket. `places` by the key of the cost, without those that no report has.
    """

    method: str
    density: float | None
    value: float
    std: float | None
    n: int
    failed: int
    irp_seconds: float | None
    places: dict[str, Place]

    @property
    def name(self) -> str:
        """`smallest_paths@0.02`, without a density where the method says it all."""
        return self.method if self.density is None or self.density == 1 else f"{self.method}@{self.density:g}"

    @property
    def in_baseline(self) -> bool:
        """Whether it is dense or a narrower dense network."""
        return is_reference(self.method)


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """The points of one target and data set; `baseline`: whether there are narrow networks among them."""

    target: str
    dataset: str
    baseline: bool
    points: tuple[Point, ...]
    metric: Metric = ACCURACY

    @property
    def coins(self) -> list[str]:
        """Keys of the costs that some point has."""
        return [coin.key for coin in COINS if any(coin.key in point.places for point in self.points)]

    def to_plain(self) -> dict[str, Any]:
        """JSON-like data."""
        told = {"target": self.target, "dataset": self.dataset, "baseline": self.baseline, **stored(self.metric)}
        return {**told, "points": [asdict(point) for point in self.points]}


def from_plain(found: Mapping[str, Any]) -> Frontier:
    """The frontier that `to_plain` has told."""
    points = []
    for point in found["points"]:
        places = {key: Place(**{**place, "over": Paired(**place["over"])}) for key, place in point["places"].items()}
        known = {("value" if name == "accuracy" else name): part for name, part in point.items()}  # as earlier versions called it
        points.append(Point(**{**known, "places": places}))
    about = {name: found[name] for name in ("target", "dataset", "baseline")}
    return Frontier(**about, points=tuple(points), metric=metric_of(found))


@dataclass(frozen=True)
class _Cell:
    """The arms of a point that have a value: seed -> value and costs."""

    method: str
    density: float | None
    values: dict[int, float]
    costs: dict[int, Costs]
    failed: int

    @property
    def value(self) -> float:
        return statistics.fmean(self.values.values())

    def paid(self, key: str) -> dict[int, float]:
        """Seed -> cost, of seeds that know it."""
        return {seed: cost for seed, costs in self.costs.items() if (cost := costs[key]) is not None and cost > 0}


def frontiers(arms: Sequence[Report], scores: Sequence[Report], irp: Irp | None = None) -> list[Frontier]:
    """One per target and data set with an arm that says what it costs; `irp` as `ledger.ticket_seconds` gives it."""
    scoring = scoring_seconds(scores)
    groups: dict[tuple[str, str], dict[tuple[str, float | None], list[Report]]] = {}
    for arm in arms:
        if not arm["control"]:
            groups.setdefault((arm["target"], arm["dataset"]), {}).setdefault((arm["method"], arm["density"]), []).append(arm)
    found = []
    for (target, dataset), group in groups.items():
        cells = [cell for (method, density), members in group.items() if (cell := _cell(method, density, members, scoring)).values]
        metric = metric_among(arm for members in group.values() for arm in members)
        points = _points(target, cells, irp or {}, metric)
        baseline = any(family(cell.method) == NARROW for cell in cells)
        found.append(Frontier(target=target, dataset=dataset, baseline=baseline, points=tuple(sorted(points, key=_order)), metric=metric))
    return [one for one in found if one.coins]


def at_equal_cost(curve: Curve, cost: float) -> float | None:
    """The value at `cost`: on the straight line over log(cost) between its two neighbours, None outside of them all.

    What has the very same cost counts as its mean. Costs are above 0.
    """
    points = [(key, statistics.fmean(value for _, value in group)) for key, group in itertools.groupby(sorted(curve), lambda one: one[0])]
    after = bisect.bisect_left(points, cost, key=lambda one: one[0])
    if after == len(points) or (after == 0 and points[0][0] != cost):
        return None
    above, high = points[after]
    if above == cost:
        return high
    below, low = points[after - 1]
    return low + (high - low) * math.log(cost / below) / math.log(above / below)


def _cell(method: str, density: float | None, arms: Sequence[Report], scoring: Mapping[tuple[str, int, str], float | None]) -> _Cell:
    values = {arm["seed"]: value for arm in arms if (value := value_of(arm)) is not None}
    scored = not is_reference(method) and arm_of(arms[0]).scored
    costs = {
        seed: costs_of(arm, scoring.get((arm["target"], seed, method)) if scored else 0.0)
        for arm in arms
        if (seed := arm["seed"]) in values
    }
    return _Cell(method, density, values, costs, len(arms) - len(values))


def _points(target: str, cells: Sequence[_Cell], irp: Irp, metric: Metric) -> list[Point]:
    """The points of one target and data set, each with its place by every cost."""
    places: dict[tuple[str, float | None], dict[str, Place]] = {(cell.method, cell.density): {} for cell in cells}
    for coin in COINS:
        known = [(cell, paid) for cell in cells if (paid := cell.paid(coin.key))]
        means = [(statistics.fmean(paid.values()), metric.sign * cell.value) for cell, paid in known]
        curves = _curves(coin.key, cells)
        for (cell, paid), (cost, good) in zip(known, means, strict=True):
            beaten = any(rival <= cost and other > good for rival, other in means)
            over, verdict = Paired(n=0), None
            if curves and not is_reference(cell.method):
                over = _over(cell, paid, curves, metric.sign)
                verdict = VERDICTS[standing_of(over, metric)] if paid.keys() & curves.keys() else UNPAIRED
            places[cell.method, cell.density][coin.key] = Place(cost=cost, on_frontier=not beaten, over=over, verdict=verdict)
    return [_point(cell, places[cell.method, cell.density], target, irp) for cell in cells]


def _curves(key: str, cells: Sequence[_Cell]) -> dict[int, Curve]:
    """Seed -> the narrow networks and the dense one by cost, of seeds with a narrow network."""
    curves: dict[int, Curve] = {}
    for cell in sorted(cells, key=lambda cell: cell.method == DENSE):  # last: without a narrow one it is no curve
        if is_reference(cell.method):
            for seed, cost in cell.paid(key).items():
                if seed in curves or cell.method != DENSE:
                    curves.setdefault(seed, []).append((cost, cell.values[seed]))
    return curves


def _over(cell: _Cell, paid: Mapping[int, float], curves: Mapping[int, Curve], sign: int) -> Paired:
    """What a point gains over the curve of its seed at its cost."""
    found = {seed: at_equal_cost(curves[seed], cost) for seed, cost in paid.items() if seed in curves}
    return paired(cell.values, {seed: value for seed, value in found.items() if value is not None}, sign)


def _point(cell: _Cell, places: dict[str, Place], target: str, irp: Irp) -> Point:
    values = list(cell.values.values())
    spent = [irp[target, seed, cell.density] for seed in cell.values if cell.density and (target, seed, cell.density) in irp]
    return Point(
        method=cell.method,
        density=cell.density,
        value=cell.value,
        std=statistics.stdev(values) if len(values) > 1 else None,
        n=len(values),
        failed=cell.failed,
        irp_seconds=statistics.fmean(spent) if spent and cell.method == TICKET else None,
        places=places,
    )


def _order(point: Point) -> tuple[Any, ...]:
    """Dense, narrow networks from wide to narrow, then methods by name and density, falling."""
    size = point.places["parameters"].cost if "parameters" in point.places else 0.0
    return (
        point.method != DENSE,
        not point.in_baseline,
        *((0, "", -size) if point.in_baseline else (1, point.method, -(point.density or 0.0))),
    )
