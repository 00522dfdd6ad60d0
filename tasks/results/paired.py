"""Two methods over the same seeds: whether their difference is more than the seeds make.

A difference has one sign everywhere: the method minus what it is compared with, be that a rival or a control of its own; the other way
round where a lower value is better, so that above 0 is always a gain.
"""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.special import stdtr, stdtrit  # scipy.stats takes a second to import

from autosparse.models.arms.controls import CONTROLS
from autosparse.models.training.objective import Metric
from autosparse.tasks.results.arm_reports import Report
from autosparse.tasks.results.markdown import markdown
from autosparse.tasks.results.measured import metric_among, value_of

CONFIDENCE = 0.95
Place = tuple[str, str, float]
Cell = dict[str, dict[int, float]]

SAME = 1e-12  # differences closer than this are one and the same: what is left is rounding


@dataclass(frozen=True, kw_only=True)
class Paired:
    """`mean` of first minus second over `n` shared seeds, `std` of the differences (n - 1), Student's t-test and interval.

    `p_value` is two-sided, `low` and `high` hold the mean with CONFIDENCE. What n does not allow is None, never NaN: all of
    it for n = 0, all but the mean for n = 1, test and interval where every seed has the same difference.
    """

    n: int
    mean: float | None = None
    std: float | None = None
    p_value: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def error(self) -> float | None:
        """The standard error of the mean, std / sqrt(n)."""
        return None if self.std is None else self.std / math.sqrt(self.n)


def paired(first: Mapping[int, float], second: Mapping[int, float], sign: int = 1) -> Paired:
    """Compare seed -> value of two methods over the seeds that both have; `sign` is that of the metric.

    The t-test is that of the paired differences (Student 1908): t = mean / (std / sqrt(n)) with n - 1 degrees of freedom.
    """
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return Paired(n=0)
    differences = [sign * (first[seed] - second[seed]) for seed in seeds]
    mean = statistics.fmean(differences)
    if len(seeds) == 1:
        return Paired(n=1, mean=mean)
    std = statistics.stdev(differences)
    if std < SAME:
        return Paired(n=len(seeds), mean=mean, std=0.0)
    freedom, error = len(seeds) - 1, std / math.sqrt(len(seeds))
    p_value, half = 2 * float(stdtr(freedom, -abs(mean) / error)), error * float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
    return Paired(n=len(seeds), mean=mean, std=std, p_value=p_value, low=mean - half, high=mean + half)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """The p-values of several tests, each corrected for all of them (Holm 1979): below .05 there is one wrong rejection in 20 tables.

    In rising order the i-th of m, from 0, is multiplied by m - i; none is smaller than the one before it, none above 1.
    """
    found: dict[str, float] = {}
    largest = 0.0
    for index, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - index) * p_values[name]))
        found[name] = largest
    return found


def cells(arms: Sequence[Report], control: str | None = None) -> dict[Place, Cell]:
    """(target, data set, density) -> method -> seed -> value, densities falling; of the methods themselves, or under one `control`.

    Every place of any arm is there. A failed arm leaves its method without the seed.
    """
    found: dict[Place, Cell] = {}
    for arm in arms:
        cell = found.setdefault((arm["target"], arm["dataset"], arm["density"]), {})
        if arm["control"] == control:
            seeds = cell.setdefault(arm["method"], {})
            if (value := value_of(arm)) is not None:
                seeds[arm["seed"]] = value
    return {place: found[place] for place in sorted(found, key=lambda place: (place[0], place[1], -(place[2] or 0)))}


def metrics_of(arms: Sequence[Report]) -> dict[tuple[str, str], Metric]:
    """(target, data set) -> the metric of its arms."""
    groups: dict[tuple[str, str], list[Report]] = {}
    for arm in arms:
        groups.setdefault((arm["target"], arm["dataset"]), []).append(arm)
    return {place: metric_among(group) for place, group in groups.items()}


def control_rows(arms: Sequence[Report]) -> list[dict[str, Any]]:
    """Every control that was run against its own method, per target x dataset x density: the method minus the control."""
    spoiled, metrics = {control: cells(arms, control) for control in CONTROLS}, metrics_of(arms)
    rows = []
    for place, cell in cells(arms).items():
        for method, control in itertools.product(sorted(cell), CONTROLS):
            other = spoiled[control][place].get(method)
            if cell[method] and other and place[2] is not None:
                found = paired(cell[method], other, metrics[place[:2]].sign)
                named = {**dict(zip(("target", "dataset", "density"), place, strict=True)), "method": method, "control": control}
                rows.append({**named, "n": found.n, "difference": found.mean, **_spread(found)})
    return rows


def control_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as people read them: a line per cell and method, the method minus each control with its 95 % interval and n."""
    controls = [control for control in CONTROLS if any(row["control"] == control for row in rows)]
    places = ("target", "dataset", "density", "method")
    lines = []
    for place in dict.fromkeys(tuple(row[name] for name in places) for row in rows):
        shown = {row["control"]: _cell(row) for row in rows if tuple(row[name] for name in places) == place}
        names = [f"{value:g}" if isinstance(value, float) else value for value in place]
        lines.append([*names, *(shown.get(control, "") for control in controls)])
    return markdown([*places, *(f"minus {control}" for control in controls)], lines)


def _spread(found: Paired) -> dict[str, float | None]:
    return {"std": found.std, "p_value": found.p_value, "low": found.low, "high": found.high}


def _cell(row: dict[str, Any]) -> str:
    """`+.052 [.031, .073] (n=3)`."""
    if row["difference"] is None:
        return "no shared seed"
    interval = f" [{row['low']:+.3f}, {row['high']:+.3f}]" if row["low"] is not None else ""
    return f"{row['difference']:+.3f}{interval} (n={row['n']})"
