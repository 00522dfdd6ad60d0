"""`autosparse sweep`: one run per cell of a grid over fields of a spec, one after another, and one table of all."""

import hashlib
import itertools
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from autosparse.flows.assignments import parse_grid
from autosparse.flows.run_command import begun, checked, exported, run_checked, say_plan, started, warn_of_services
from autosparse.models.errors import AutosparseError, JobError, not_allowed
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import fingerprint, override
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import LONGEST, RunPaths
from autosparse.storage.reports import find
from autosparse.storage.store import Store
from autosparse.tasks.checks.preflight import check_local_data
from autosparse.tasks.planning.plan import stored_plan
from autosparse.tasks.planning.schedule import machine
from autosparse.tasks.results.pooled import value_at
from autosparse.tasks.results.table import result_table
from autosparse.tasks.results.table_text import markdown_text
from autosparse.tasks.settings import Settings

DONE, RAN, FAILED = "done before", "done", "failed"
PLAIN = re.compile(r"[a-z0-9_.]+")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a sweep: its name, the values of the swept fields, and its spec, checked."""

    name: str
    values: Mapping[str, Any]
    spec: ExperimentSpec

    def done(self, store: Store) -> bool:
        """Whether its summary is there."""
        return find(store, RunPaths(self.name).summary) is not None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a cell: `done before`, `done` or `failed`, with the error in one line."""

    cell: Cell
    status: str
    error: str = ""

    def to_plain(self) -> dict[str, Any]:
        """JSON-like data."""
        return {"name": self.cell.name, "values": dict(self.cell.values), "status": self.status, "error": self.error or None}


def sweep(
    recipe: str | None,
    file: Path | None,
    name: str | None,
    changes: dict[str, Any],
    over: tuple[str, ...],
    *,
    force: bool = False,
    dry_run: bool = False,
    as_json: bool = False,
) -> None:
    """Run every cell that is not done, and print the table of all that are. Raises SpecError and others before anything starts.

    A failed cell does not stop the others; JobError names them in the end.
    """
    settings = exported()
    store = open_store(settings.storage)
    base = begun(recipe, file)
    cells = cells_of(settings, base, name, changes, parse_grid(over), force=force, cache=None if dry_run else settings.cache)
    if dry_run:
        _print_plan(settings, store, cells, as_json=as_json)
        return
    warn_of_services(settings)
    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        outcomes = run_cells(cells, store, partial(_runner, settings, recipe, force))
    _print_table(store, outcomes, as_json=as_json)
    if failed := [outcome for outcome in outcomes if outcome.status == FAILED]:
        said = "; ".join(f"{outcome.cell.name} ({outcome.error})" for outcome in failed)
        raise JobError(f"sweep: {len(failed)} of {len(cells)} cells failed: {said}; the same command tries them again")


def cells_of(
    settings: Settings,
    base: ExperimentSpec,
    name: str | None,
    changes: dict[str, Any],
    grid: Mapping[str, list[Any]],
    *,
    force: bool = False,
    cache: Path | None = None,
) -> list[Cell]:
    """Every cell of the grid, checked as `run` checks its spec. Raises what it raises, a line per error with the name of its run.

    Without a `cache` for decoded images nothing is written.
    """
    if not grid:
        raise not_allowed("--over", "none", "one or more of FIELD=VALUE,VALUE, e.g. fanout.train.lr=0.05,0.1")
    if both := sorted(set(grid) & set(changes)):
        raise not_allowed("--over", both[0], "a field that --set does not name")
    name = name or f"sweep-{fingerprint(override(base, changes))}"
    listed = {field for field in grid if isinstance(value_at(base, field), list)}
    cells, errors = [], []
    for values in itertools.product(*grid.values()):
        cell = {
            field: [value] if field in listed and not isinstance(value, list) else value for field, value in zip(grid, values, strict=True)
        }
        run = cell_name(name, cell)
        try:
            spec, _ = checked(settings, base, run, {**changes, **cell}, force=force)
            if settings.ray_address is None:
                check_local_data(spec, cache)
        except AutosparseError as error:
            errors += [(type(error), f"{run}: {line}") for line in str(error).splitlines()]
        else:
            cells.append(Cell(name=run, values=cell, spec=spec))
    if errors:
        raise errors[0][0]("\n".join(line for _, line in errors))
    return cells


def cell_name(sweep: str, values: Mapping[str, Any]) -> str:
    """The name of a cell's run, the same for the same values: `NAME-lr-0_05`; a digest stands for what a name cannot spell."""
    lasts = [field.rpartition(".")[2] for field in values]
    parts = []
    for field, value in values.items():
        last = field.rpartition(".")[2]
        texts = [one if isinstance(one, str) else json.dumps(one) for one in (value if isinstance(value, list) else [value])]
        lossy = not all(map(PLAIN.fullmatch, texts))
        parts += [
            _slug(field.replace(".", "-") if lasts.count(last) > 1 else last),
            *map(_slug, texts),
            *([_digest(json.dumps(value))] if lossy else []),
        ]
    name = "-".join([sweep, *filter(None, parts)])
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 11].rstrip('-')}-{_digest(name, 10)}"


def run_cells(cells: Sequence[Cell], store: Store, runner: Callable[[], Callable[[Cell], None]]) -> list[Outcome]:
    """What becomes of each cell; `runner` starts what runs them, and is asked only where one is to be run."""
    run: Callable[[Cell], None] | None = None
    outcomes = []
    for number, cell in enumerate(cells, start=1):
        if cell.done(store):
            outcomes.append(Outcome(cell=cell, status=DONE))
            continue
        _say(f"cell {number} of {len(cells)}: {cell.name}")
        try:
            run = run or runner()
            run(cell)
            outcomes.append(Outcome(cell=cell, status=RAN))
        except Exception as error:
            said = (str(error).splitlines() or [""])[0]
            outcomes.append(Outcome(cell=cell, status=FAILED, error=f"{type(error).__name__}: {said}"))
            sys.stderr.write(f"cell {number} of {len(cells)}: {cell.name} failed: {said}\n")
    return outcomes


def _runner(settings: Settings, recipe: str | None, force: bool) -> Callable[[Cell], None]:
    pipeline = started(settings)

    def run(cell: Cell) -> None:
        say_plan(settings, cell.spec, RunPaths(cell.name))
        run_checked(settings, pipeline, cell.spec, cell.name, recipe, force=force)

    return run


def _print_plan(settings: Settings, store: Store, cells: Sequence[Cell], *, as_json: bool) -> None:
    """Every cell and what is left of it, by what storage knows."""
    plans = [stored_plan(store, RunPaths(cell.name), cell.spec, machine(), quick=True) for cell in cells]
    if as_json:
        found = [
            {"name": cell.name, "values": dict(cell.values), "to_do": len(plan.to_do), "trainings": plan.trainings, "seconds": plan.seconds}
            for cell, plan in zip(cells, plans, strict=True)
        ]
        _say(json.dumps({"cells": found}, indent=2))
        return
    for cell, plan in zip(cells, plans, strict=True):
        values = ", ".join(f"{field}={json.dumps(value)}" for field, value in cell.values.items())
        _say(f"{cell.name}: {values}: {plan.line(timed=settings.ray_address is None)}")
    _say(f"{len(cells)} cells, {sum(plan.trainings for plan in plans)} trainings to do")


def _print_table(store: Store, outcomes: Sequence[Outcome], *, as_json: bool) -> None:
    there = [outcome.cell for outcome in outcomes if outcome.status != FAILED]
    table = result_table(store, [cell.name for cell in there], list(there[0].values)) if there else None
    if as_json:
        cells = [outcome.to_plain() for outcome in outcomes]
        _say(json.dumps({"cells": cells, "table": table.to_plain() if table else None}, indent=2))
    elif table:
        _say(markdown_text(table).rstrip())


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _slug(text: str) -> str:
    return re.sub("[^a-z0-9_]+", "-", text.lower().replace(".", "_")).strip("-")


def _digest(text: str, length: int = 6) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]
