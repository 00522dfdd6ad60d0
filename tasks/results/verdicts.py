"""What the numbers of a run say, in words: gap closure, controls, headline. Pure functions of arm reports, compared seed by seed."""

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from autosparse.models.methods.names import family, is_criterion, is_learned, looks_ahead
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.grain import grain_of, kind_of, number_of
from autosparse.models.specs.run_specs import LEARNED, SCORER, TICKET
from autosparse.models.training.objective import ACCURACY, Metric
from autosparse.tasks.results.arm_reports import Report
from autosparse.tasks.results.measured import gain
from autosparse.tasks.results.paired import CONFIDENCE, Cell, Paired, Place, cells, metrics_of, paired
from autosparse.tasks.results.rows import Row

NO_RESULT = "No result yet: no arm at a density below 1 has a value."
SMALLEST = 1e-9  # a difference that is more than rounding
WORSE = {"higher": "fall", "lower": "rise"}
# control -> (what it says when the network is worse under it by a point of the metric, and when it is not)
WORDS = {
    "shuffle": ("weights matter", "only layer densities matter"),
    "reinit": ("initial values matter", "initial values do not matter"),
    "rescale": ("the size of what is kept matters", "the size of what is kept does not matter"),
    "invert": ("the order of scores matters", "the order of scores does not matter"),
}


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Where a learned scorer (`method`) stands between the best criterion at initialization and the ticket.

    `over` is scorer - best, seed by seed; `scorer` and `best` are means over the seeds they share (over all, where they share none).
    The ticket has seeds of its own. `closure` is None where `why` says so: of a grain it always is, because a ticket's arm does not say
    what its number is a share of. Criteria of another grain or cost are no rivals, nor are those that look ahead: they are a track of
    their own.
    """

    method: str
    target: str
    dataset: str
    density: float
    scorer: float | None
    best: float | None
    best_name: str
    ticket: float | None
    over: Paired
    closure: float | None
    why: str = ""
    metric: Metric = ACCURACY

    @property
    def lead(self) -> float | None:
        """What the scorer gains over the best criterion, mean over shared seeds."""
        return self.over.mean


@dataclass(frozen=True, kw_only=True)
class Control:
    """A control beside its method at one density; `found` is method - control, seed by seed."""

    target: str
    dataset: str
    method: str
    control: str
    density: float
    base: float | None
    accuracy: float | None
    found: Paired
    verdict: str
    metric: Metric = ACCURACY


def panels(rows: list[Row]) -> list[tuple[str, str]]:
    """Targets and data sets in the order of the rows."""
    return list(dict.fromkeys((row["target"], row["dataset"]) for row in rows))


def densities(rows: list[Row]) -> list[float]:
    """Densities below 1 that were asked for, falling."""
    return sorted({row["density"] for row in rows if row["density"] is not None and row["density"] < 1}, reverse=True)


def gaps(arms: Sequence[Report]) -> list[Gap]:
    """(scorer - best criterion) / (ticket - best criterion), per target, data set, density below 1 and learned scorer at any grain.

    Where no scorer has an arm its gap is there and says so.
    """
    metrics = metrics_of(arms)
    return [
        _gap(place, cell, method, metrics[place[:2]])
        for place, cell in cells(arms).items()
        for method in learned(cell) or [SCORER]
        if place[2] is not None and place[2] < 1
    ]


def learned(cell: Cell) -> list[str]:
    """The learned scorers of a cell at all grains: that of the strict track first, single weights before grains."""
    return sorted((name for name in cell if is_learned(name)), key=lambda name: (LEARNED.index(family(name)), name))


def criteria(cell: Cell, method: str, *, ahead: bool = False) -> list[str]:
    """The criteria of a cell that are cut as `method` is, those from outside among them; without those that look ahead unless `ahead`."""
    kind = kind_of(method)
    return [name for name in cell if is_criterion(name) and kind_of(name) == kind and (ahead or not looks_ahead(name))]


def best_of(cell: Cell, names: Iterable[str], seeds: Collection[int], sign: int = 1) -> str:
    """The method with the best mean over those `seeds` it has; over all its seeds where none has any of them; "" of nothing.

    A method that failed on a seed counts by the others, which makes it no easier to beat.
    """
    there = {name: cell[name] for name in sorted(names) if cell.get(name)}
    shared = {name: {seed: values[seed] for seed in values if seed in seeds} for name, values in there.items()}
    shared = {name: values for name, values in shared.items() if values} or there
    return max(shared, key=lambda name: sign * statistics.fmean(shared[name].values()), default="")


def _gap(place: Place, cell: Cell, method: str, metric: Metric) -> Gap:
    mine = cell.get(method, {})
    name = best_of(cell, criteria(cell, method), mine.keys(), metric.sign)
    rival = cell.get(name, {})
    grained = grain_of(method) is not None
    scorer, best, ticket = _mean(mine, rival), _mean(rival, mine), None if grained else _mean(cell.get(TICKET, {}))
    missing = [what for what, mean in ((method, scorer), ("criterion", best), (TICKET, ticket)) if mean is None]
    closure, why = None, "gap closure is one of single weights" if grained else f"no {' and no '.join(missing)}"
    if scorer is not None and ticket is not None and best is not None:
        whole = metric.sign * (ticket - best)
        if whole <= 0:
            why = "the ticket is not better than the best criterion"
        elif whole < _noise(cell[TICKET], rival, metric):
            why = f"the ticket is no more than noise above the best criterion, {gain(metric, whole)}"
        else:
            closure, why = (scorer - best) / (ticket - best), ""
    return Gap(
        method=method,
        target=place[0],
        dataset=place[1],
        density=place[2],
        scorer=scorer,
        best=best,
        best_name=name,
        ticket=ticket,
        over=paired(mine, rival, metric.sign),
        closure=closure,
        why=why,
        metric=metric,
    )


def _noise(first: Mapping[int, float], second: Mapping[int, float], metric: Metric) -> float:
    """Below this a difference of two means is no denominator: two points of the metric, or two standard errors where seeds tell them."""
    variances = [statistics.variance(seeds.values()) / len(seeds) for seeds in (first, second) if len(seeds) > 1]
    return max(2 * metric.point, 2 * math.sqrt(sum(variances)))


def controls(arms: Sequence[Report]) -> list[Control]:
    """Every control beside its method at the same target and density, over the seeds that both have."""
    plain, metrics, found = cells(arms), metrics_of(arms), []
    for control in dict.fromkeys(arm["control"] for arm in arms if arm["control"]):
        for (target, dataset, density), cell in cells(arms, control).items():
            for method, spoiled in cell.items():
                base = plain[target, dataset, density].get(method, {})
                metric = metrics[target, dataset]
                compared = paired(base, spoiled, metric.sign)
                found.append(
                    Control(
                        target=target,
                        dataset=dataset,
                        method=method,
                        control=control,
                        density=density,
                        base=_mean(base, spoiled),
                        accuracy=_mean(spoiled, base),
                        found=compared,
                        verdict=verdict(control, compared.mean, metric, "no seed that both have" if base and spoiled else ""),
                        metric=metric,
                    )
                )
    return sorted(found, key=lambda one: (one.target, one.dataset, one.method, one.control, -one.density))


def verdict(control: str, difference: float | None, metric: Metric = ACCURACY, why: str = "") -> str:
    """What a control says by the mean paired difference, method minus control; `why` it says nothing where there is none."""
    if difference is None:
        return f"not defined: {why or 'a value is missing'}"
    worse = WORSE[metric.better]
    falls, holds = WORDS.get(control, (f"{metric.name} {worse}s", f"{metric.name} does not {worse}"))
    return falls if round(difference, 9) >= max(metric.point, SMALLEST) else holds  # rounded: .81 - .80 is not .01 in binary


def _mean(seeds: Mapping[int, float], other: Collection[int] = ()) -> float | None:
    """The mean over the seeds of `other` too, over all where there are none."""
    values = [seeds[seed] for seed in seeds if seed in other] or list(seeds.values())
    return statistics.fmean(values) if values else None


def standing(gap: Gap) -> str:
    """The scorer beside the best criterion, seed by seed, in the words of `standing_of`."""
    return standing_of(gap.over, gap.metric)


def standing_of(over: Paired, metric: Metric = ACCURACY) -> str:
    """Where a method stands by its differences: `ahead`, `behind`, `level`, `unclear` or `open`.

    `level` is a mean difference of less than the metric's point; a larger one is `unclear` from a single seed, or where the paired test
    does not exclude 0 at CONFIDENCE; `open` is none at all.
    """
    if over.mean is None:
        return "open"
    lead = round(over.mean, 9)
    if abs(lead) < metric.point:
        return "level"
    if over.n < 2 or (over.p_value is not None and over.p_value >= 1 - CONFIDENCE):
        return "unclear"
    return "ahead" if lead > 0 else "behind"


def on_scorer(spec: ExperimentSpec, found: list[Gap]) -> str:
    """The headline of a run whose arms ask a learned scorer; empty for a run of other methods."""
    return headline(found) if any(map(is_learned, spec.fanout.all_methods)) else ""


def headline(found: list[Gap]) -> str:
    """One sentence on the scorer over all targets and densities; where it has no arms of single weights, one for each of its grains."""
    judged: dict[str, list[str]] = {}
    for gap in found:
        if family(gap.method) == SCORER and (place := standing(gap)) != "open":
            judged.setdefault(gap.method, []).append(place)
    if not judged:
        return "No verdict yet: there is no density with both the scorer and a criterion."
    return " ".join(_sentence(method, judged[method]) for method in ([SCORER] if SCORER in judged else judged))


def _sentence(method: str, judged: Sequence[str]) -> str:
    """`The scorer(grain=channels) is level with the best criterion at all 2 shares.`"""
    many = {"density": "densities", "share": "shares"}[number_of([method])]
    cells = f"the one {number_of([method])}" if len(judged) == 1 else f"{len(judged)} {many}"
    if len(set(judged)) == 1:
        words = {"ahead": "beats", "level": "is level with", "behind": "is behind", "unclear": "is not clearly apart from"}[judged[0]]
        return f"The {method} {words} the best criterion at {'' if len(judged) == 1 else 'all '}{cells}."
    counts = {place: judged.count(place) for place in ("ahead", "level", "behind", "unclear")}
    parts = [f"{place} at {count}" for place, count in counts.items() if count]
    return f"Against the best criterion the {method} is {', '.join(parts[:-1])} and {parts[-1]} of {cells}."
