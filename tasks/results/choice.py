"""Which method to use at which density, how sure that is, and how to use it: what a person wants to know first."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autosparse.models.methods.names import is_criterion
from autosparse.models.specs.grain import cost_of, grain_of
from autosparse.models.specs.run_specs import DENSE, LEARNED, LOOKING_AHEAD, TICKET
from autosparse.models.training.objective import ACCURACY, Metric
from autosparse.tasks.results.arm_reports import Report
from autosparse.tasks.results.frontier import is_reference
from autosparse.tasks.results.paired import Cell, Paired, Place, cells, metrics_of, paired
from autosparse.tasks.results.verdicts import standing_of

SURE = {
    "ahead": "clearly better than {second}",
    "level": "level with {second}",
    "unclear": "not clearly better than {second}",
    "open": "no seed in common with {second}",
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The method with the best mean of a cell; `over` is best - second, seed by seed; `arm` is what `inspect` and `compact` call it."""

    target: str
    dataset: str
    density: float
    best: str
    value: float
    n: int
    second: str
    over: Paired
    dense: float | None
    arm: str
    metric: Metric = ACCURACY

    @property
    def sure(self) -> str:
        """How sure the choice is, in words; one seed is called one seed."""
        if not self.second:
            return "the only method there is"
        if self.over.n == 1:
            return f"one seed: it does not tell {self.best} from {self.second}"
        return SURE[standing_of(self.over, self.metric)].format(second=self.second)


def choices(arms: Sequence[Report]) -> list[Choice]:
    """One per target, data set and density below 1 at which a method has a value, and per cost that the density is a share of.

    Tickets, dense and narrow networks are no methods.
    """
    metrics, plain = metrics_of(arms), cells(arms)
    several = len({place[0] for place in plain}) > 1
    dense = {place[:2]: cell[DENSE] for place, cell in plain.items() if cell.get(DENSE)}
    return [
        _choice(place, ranked, cell, metrics[place[:2]], dense.get(place[:2]), several)
        for place, cell in plain.items()
        if place[2] is not None and place[2] < 1
        for ranked in _ranked(cell, metrics[place[:2]])
    ]


def _choice(place: Place, ranked: list[str], cell: Cell, metric: Metric, dense: Mapping[int, float] | None, several: bool) -> Choice:
    target, dataset, density = place
    best, second = ranked[0], ranked[1] if len(ranked) > 1 else ""
    return Choice(
        target=target,
        dataset=dataset,
        density=density,
        best=best,
        value=statistics.fmean(cell[best].values()),
        n=len(cell[best]),
        second=second,
        over=paired(cell[best], cell.get(second, {}), metric.sign),
        dense=statistics.fmean(dense.values()) if dense else None,
        arm=f"{target}/{best}@{density:g}" if several else f"{best}@{density:g}",
        metric=metric,
    )


def python_lines(choice: Choice, scorer: str) -> list[str]:
    """How the method is used in a training loop of one's own; nothing for one that changes the training. `scorer` is its folder."""
    if choice.best in LEARNED:
        method = f'autosparse.scorer("{scorer}"{", ahead=True" if choice.best in LOOKING_AHEAD else ""})'
    elif is_criterion(choice.best):
        method = f'"{choice.best}"'
    else:
        return []
    cut = f"mask = autosparse.prune(model, batches, method={method}, density={choice.density:g})"
    grain = grain_of(choice.best)
    whole = grain is not None and grain.grain == "channels"
    return [cut, "model = autosparse.compact(model, example, mask)" if whole else "autosparse.hold(model, mask, optimizer)"]


def _ranked(cell: Cell, metric: Metric) -> list[list[str]]:
    """The methods of a cell with a value, those of one cost together: the best mean first; equal ones by name."""
    rivals = [name for name in sorted(cell) if cell[name] and name not in (DENSE, TICKET) and not is_reference(name)]
    costs: dict[str, list[str]] = {}
    for name in sorted(rivals, key=lambda name: -metric.sign * statistics.fmean(cell[name].values())):
        costs.setdefault(cost_of(name), []).append(name)
    return list(costs.values())
