"""A paper's table: mean and spread over seeds, and which methods of a column are the best, by paired tests corrected for their number.

In each column (one target, data set and density) and track the reference is the method with the highest mean, the lowest where lower is
better, among those with a value on the most seeds; or the one that was asked for. Every other method is compared with it over the seeds
that both have (`paired.py`), and the p-values are corrected for the number of these comparisons (`holm`). Marked, so that they are printed
bold, are the best and what is not significantly worse than it; beside a reference that was asked for what is significantly better.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from autosparse.models.errors import unknown_name
from autosparse.models.methods.names import looks_ahead, trains
from autosparse.models.specs.grain import Cost
from autosparse.models.specs.run_specs import DENSE, TICKET
from autosparse.storage.store import Store
from autosparse.tasks.results.arm_reports import name_of
from autosparse.tasks.results.measured import metric_of, value_of
from autosparse.tasks.results.paired import CONFIDENCE, SAME, Cell, Paired, cells, holm, paired
from autosparse.tasks.results.pooled import Group, check_runs, is_axis, pooled
from autosparse.tasks.results.rows import Row, summarize

TRACKS = ("strict", "lookahead", "training")  # masks at initialization, those after a short training, methods that change the training
SIGNIFICANT = 1 - CONFIDENCE
COSTS: dict[Cost, str] = {"weights": "density", "multiply_adds": "share of multiply-adds", "parameters": "share of parameters"}


@dataclass(frozen=True, kw_only=True)
class Test:
    """A method against the reference of its column: `over` is the method minus the reference, `corrected` the p-value after `holm`.

    `marked`: bold. Without a p-value `why` says why there is no test; the best is its own reference.
    """

    against: str
    over: Paired = field(default_factory=lambda: Paired(n=0))
    corrected: float | None = None
    marked: bool = False
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of results: `row` as `summarize` makes it, `over` the values of the fields in which the runs of the table differ.

    `cost` is what the density is a share of; `test` is None for what is compared with nothing.
    """

    over: tuple[Any, ...]
    row: Row
    cost: Cost
    track: str
    test: Test | None = None

    @property
    def place(self) -> tuple[Any, ...]:
        """The column of the table, over all methods of its track."""
        return (repr(self.over), *(self.row[name] for name in ("target", "dataset", "density")), self.cost, self.track)

    @property
    def key(self) -> tuple[Any, ...]:
        """What names this line and no other."""
        return *self.place, self.name

    @property
    def name(self) -> str:
        """The method, under its control."""
        return name_of(self.row)

    @property
    def competes(self) -> bool:
        """Whether it is compared with others: not dense networks, tickets, controls and methods without a density target."""
        return self.row["density"] is not None and not self.row["control"] and self.row["method"] not in (DENSE, TICKET)

    @property
    def rival(self) -> Test | None:
        """The test against another method."""
        return self.test if self.test and self.test.against != self.name else None


@dataclass(frozen=True, kw_only=True)
class ResultTable:
    """The lines in the order in which they are printed; `over` are the fields that have a column, `runs` name -> spec's fingerprint."""

    runs: Mapping[str, str]
    over: tuple[str, ...]
    against: str | None
    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    def to_plain(self) -> dict[str, Any]:
        """JSON-like data, in full precision."""
        rows = [plain_line(line, self.over) for line in self.lines]
        return {"runs": dict(self.runs), "over": list(self.over), "against": self.against, "rows": rows, "notes": list(self.notes)}


def result_table(store: Store, runs: Sequence[str], over: Sequence[str] = (), against: str | None = None) -> ResultTable:
    """The table of runs in storage. Raises SpecError and DataError as `pooled` does, and for a method `against` that no run has."""
    check_runs(runs)
    over = tuple(dict.fromkeys(over))
    groups = pooled(store, runs, over)
    lines = [line for group in groups for line in _lines(group)]
    known = {line.name for line in lines}
    if against is not None and against not in known:
        raise unknown_name("--against", against, known)
    tests = {key: test for group in groups for key, test in _tests(group, lines, against).items()}
    fingerprints = {name: prints for group in groups for name, prints in group.fingerprints.items()}
    return ResultTable(
        runs={name: fingerprints[name] for name in dict.fromkeys(runs)},
        over=tuple(field for field in over if not is_axis(field)),
        against=against,
        lines=tuple(replace(line, test=tests.get(line.key)) for line in lines),
        notes=tuple(note for group in groups for note in group.notes),
    )


def plain_line(line: Line, over: Sequence[str] = ()) -> dict[str, Any]:
    """A line flat, the same keys in each."""
    test = line.test or Test(against="")
    compared = {name: value for name, value in asdict(test.over).items() if name not in ("n", "mean", "std")}
    return {
        **dict(zip(over, line.over, strict=True)),
        **{name: value for name, value in line.row.items() if name not in ("metric", "compacted")},
        "metric": metric_of(line.row).name,
        "track": line.track,
        "density_is": COSTS[line.cost],
        "against": test.against or None,
        "shared_seeds": test.over.n,
        "difference": test.over.mean,
        **compared,
        "p_holm": test.corrected,
        "bold": test.marked,
        "no_test": test.why or None,
    }


def track_of(method: str) -> str:
    """Of which TRACKS a method is; dense networks, narrow ones and tickets stand in the first."""
    return "training" if trains(method) else "lookahead" if looks_ahead(method) else "strict"


def _lines(group: Group) -> list[Line]:
    ends = {DENSE: 0, TICKET: 1}
    lines = [
        Line(over=group.values, row=row, cost=group.cost(row["method"]), track=track_of(row["method"])) for row in summarize(group.arms)
    ]

    def order(line: Line) -> tuple[Any, ...]:
        row = line.row
        where = ends.get(row["method"], 2), TRACKS.index(line.track), group.place(row["method"]), row["method"], row["control"] or ""
        return row["target"], row["dataset"], *where, -(row["density"] or 0.0)

    return sorted(lines, key=order)


def _tests(group: Group, lines: Sequence[Line], against: str | None) -> dict[tuple[Any, ...], Test]:
    """By the key of its line the test of each line of the group that is compared with others."""
    places: dict[tuple[Any, ...], list[Line]] = {}
    for line in lines:
        if line.over == group.values and line.competes:
            places.setdefault(line.place if against is None else line.place[:-1], []).append(line)
    plain = cells(group.arms)
    found: dict[tuple[Any, ...], Test] = {}
    for rivals in places.values():
        row = rivals[0].row
        where, sign = (row["target"], row["dataset"]), metric_of(row).sign
        cell = {line.row["method"]: plain[(*where, row["density"])].get(line.row["method"], {}) for line in rivals}
        failed = {line.row["method"] for line in rivals if line.row["failed"]}
        tests = _against_best(cell, failed, sign) if against is None else _against(cell, _values(group, rivals[0], against), against, sign)
        found |= {line.key: tests[line.name] for line in rivals if line.name in tests}
    return found


def _values(group: Group, line: Line, name: str) -> Mapping[int, float]:
    """Seed -> value of the reference that was asked for, in the column of the line; a dense network stands in all of them."""
    where = line.row["target"], line.row["dataset"]
    mine = [arm for arm in group.arms if name_of(arm) == name and (arm["target"], arm["dataset"]) == where]
    if name != DENSE:
        mine = [arm for arm in mine if (arm["density"], group.cost(arm["method"])) == (line.row["density"], line.cost)]
    return {arm["seed"]: value for arm in mine if (value := value_of(arm)) is not None}


def _against_best(cell: Cell, failed: set[str], sign: int) -> dict[str, Test]:
    """Every method against the best one; what lost a seed is not among the best, whatever the others say of it."""
    most = max(map(len, cell.values()))
    if most == 0:
        return {}
    best = max((name for name in sorted(cell) if len(cell[name]) == most), key=lambda name: sign * statistics.fmean(cell[name].values()))
    tests = _against(cell, cell[best], best, sign)
    rivals = [name for name in cell if name != best]
    judged = any(tests[name].corrected is not None for name in rivals)
    near = {name for name in rivals if (p := tests[name].corrected) is not None and (p >= SIGNIFICANT or (tests[name].over.mean or 0) > 0)}
    tests[best] = Test(against=best, over=Paired(n=most))
    return {name: replace(test, marked=judged and name not in failed and (name == best or name in near)) for name, test in tests.items()}


def _against(cell: Cell, reference: Mapping[int, float], name: str, sign: int) -> dict[str, Test]:
    """Every method of a cell against the reference, marked where it is significantly better."""
    found = {method: paired(values, reference, sign) for method, values in cell.items() if method != name}
    p_values = {method: p for method, over in found.items() if (p := _p_value(over)) is not None}
    corrected = holm(p_values)
    return {
        method: Test(
            against=name,
            over=over,
            corrected=(p := corrected.get(method)),
            marked=p is not None and p < SIGNIFICANT and (over.mean or 0) > 0,
            why="" if p is not None else _no_test(over),
        )
        for method, over in found.items()
    }


def _p_value(over: Paired) -> float | None:
    """Of the paired test; equal values on every seed are no difference."""
    return 1.0 if over.n > 1 and over.mean is not None and abs(over.mean) < SAME and over.std == 0 else over.p_value


def _no_test(over: Paired) -> str:
    return {0: "no shared seed", 1: "one shared seed"}.get(over.n, "the same difference on every seed")
