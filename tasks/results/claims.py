"""The claims of a run, one row per learned scorer, target and density: what it is better than, by how much, and what it costs.

Every difference is taken seed by seed (`tasks/results/paired.py`). What a run does not have (a ticket, growth, a second seed) is None in
the rows and a dash in the table, never an error.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autosparse.models.methods.names import family, looks_ahead
from autosparse.models.specs.grain import number_of
from autosparse.tasks.results.arm_reports import Report
from autosparse.tasks.results.ledger import Ledger
from autosparse.tasks.results.markdown import markdown
from autosparse.tasks.results.paired import Cell, Paired, Place, cells, metrics_of, paired
from autosparse.tasks.results.verdicts import best_of, criteria, gaps, learned, verdict

DASH = "-"
GROWTH = "growth"
HEAD = ("target", "dataset", "density", "track", "value", "over the best criterion", "over the best at init", "over growth")
MORE = ("gap closure", "over its own shuffle", "what matters", "scoring / retraining", "pays after")


@dataclass(frozen=True, kw_only=True)
class Against:
    """The method minus `rival`, seed by seed."""

    rival: str
    over: Paired


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`track`: strict, or lookahead where the method trains a probe first.

    `best` is the best criterion that the track is held against: in the strict track without those that look ahead, in the other one
    of all. `best_at_init` leaves out those that look ahead in both tracks, `growth` is that one alone; `closure` is
    (method - best_at_init) / (ticket - best_at_init). `shuffle` is the method minus its own mask shuffled within layers. `scoring`
    (the probe included) and `retraining` are mean wall seconds of the steps on this target; `reuses` of the scorer pay for its IRP.
    """

    target: str
    dataset: str
    density: float
    method: str
    track: str
    value: float
    n: int
    best: Against | None
    best_at_init: Against | None
    growth: Against | None
    ticket: float | None
    closure: float | None
    shuffle: Paired | None
    weights: str | None
    scoring: float | None
    retraining: float | None
    reuses: float | None

    @property
    def share(self) -> float | None:
        """Scoring as a share of one retraining."""
        return self.scoring / self.retraining if self.scoring is not None and self.retraining else None

    def to_plain(self) -> dict[str, Any]:
        """JSON-like data; comparisons with their standard error, scoring as a share of retraining."""
        plain = {**asdict(self), "share": self.share}
        for name in ("best", "best_at_init", "growth"):
            against = getattr(self, name)
            plain[name] = against and {"rival": against.rival, **_plain(against.over)}
        return {**plain, "shuffle": self.shuffle and _plain(self.shuffle)}


def claims(arms: Sequence[Report], scores: Sequence[Report], costs: Ledger) -> list[Claim]:
    """A claim for every target, data set, density below 1 and learned method with a value; `scores` are scoring reports."""
    closed = {(gap.target, gap.dataset, gap.density, gap.method): gap for gap in gaps(arms)}
    shuffles, metrics = cells(arms, "shuffle"), metrics_of(arms)
    found = []
    for place, cell in cells(arms).items():
        for method in learned(cell):
            mine = cell[method]
            if not mine or place[2] is None or place[2] >= 1:
                continue
            ahead = looks_ahead(method)
            rivals = criteria(cell, method, ahead=ahead)
            control = shuffles[place].get(method)
            metric = metrics[place[:2]]
            shuffle = paired(mine, control, metric.sign) if control else None
            gap = closed[(*place, method)]
            found.append(
                Claim(
                    target=place[0],
                    dataset=place[1],
                    density=place[2],
                    method=method,
                    track="lookahead" if ahead else "strict",
                    value=statistics.fmean(mine.values()),
                    n=len(mine),
                    best=_against(cell, method, rivals, metric.sign),
                    best_at_init=_against(cell, method, criteria(cell, method), metric.sign),
                    growth=_against(cell, method, [name for name in rivals if family(name) == GROWTH], metric.sign),
                    ticket=gap.ticket,
                    closure=gap.closure,
                    shuffle=shuffle,
                    weights=verdict("shuffle", shuffle.mean, metric) if shuffle and shuffle.mean is not None else None,
                    scoring=_seconds(scores, place, method),
                    retraining=_seconds([arm for arm in arms if arm.get("status") == "ok"], place, method),
                    reuses=costs.reuses(method)[0],
                )
            )
    return found


def claims_table(found: Sequence[Claim]) -> str:
    """The claims as people read them: differences ± standard error, n and p of the paired test; a dash where one is missing."""
    return markdown(claims_head(found), map(claim_cells, found))


def claims_head(found: Sequence[Claim]) -> list[str]:
    """The columns of the table."""
    number = number_of(claim.method for claim in found)
    return [number if title == "density" else title for title in (*HEAD, *MORE)]


def claim_cells(claim: Claim) -> list[str]:
    """One line of the table, as `claims_head` names its cells."""
    return [
        claim.target,
        claim.dataset,
        f"{claim.density:g}",
        f"{claim.method} ({claim.track})",
        f"{claim.value:.4f} (n={claim.n})",
        *(_shown(against.over, against.rival) if against else DASH for against in (claim.best, claim.best_at_init, claim.growth)),
        DASH if claim.closure is None else f"{100 * claim.closure:.1f} %",
        _shown(claim.shuffle) if claim.shuffle else DASH,
        claim.weights or DASH,
        _cost(claim),
        DASH if claim.reuses is None else f"{claim.reuses:.2f} reuses",
    ]


def _against(cell: Cell, method: str, rivals: Sequence[str], sign: int) -> Against | None:
    mine = cell[method]
    rival = best_of(cell, rivals, mine.keys(), sign)
    over = paired(mine, cell.get(rival, {}), sign)
    return Against(rival=rival, over=over) if over.n else None


def _seconds(reports: Sequence[Report], place: Place, method: str) -> float | None:
    """Mean wall seconds of the reports on this target by this method; a scoring is no matter of the data set's name."""
    mine = [
        report["seconds"]
        for report in reports
        if (report["target"], report["method"], report["control"]) == (place[0], method, None)
        and report.get("dataset", place[1]) == place[1]
        and "seconds" in report
    ]
    return statistics.fmean(mine) if mine else None


def _plain(found: Paired) -> dict[str, Any]:
    return {**asdict(found), "error": found.error}


def _shown(found: Paired, rival: str = "") -> str:
    """`+0.0150 ± 0.0050 snip (n=2, p=0.20)`."""
    if found.mean is None:
        return DASH
    error = f" ± {found.error:.4f}" if found.error is not None else ""
    test = f", p={found.p_value:.2g}" if found.p_value is not None else ""
    return f"{found.mean:+.4f}{error}{f' {rival}' if rival else ''} (n={found.n}{test})"


def _cost(claim: Claim) -> str:
    if claim.scoring is None or claim.retraining is None:
        return DASH
    share = f" ({100 * claim.share:.1f} %)" if claim.share is not None else ""
    return f"{claim.scoring:.1f} s / {claim.retraining:.1f} s{share}"
