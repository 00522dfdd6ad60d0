"""`autosparse sweep`: one run for every combination of values of some fields of a spec, one after another, and one table of all."""

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
class SweepRun:
    """One run of a sweep: its name, the values of the swept fields, and its spec, checked."""

    name: str
    values: Mapping[str, Any]
    spec: ExperimentSpec

    def done(self, store: Store) -> bool:
        """Whether its summary is there."""
        return find(store, RunPaths(self.name).summary) is not None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a run: `done before`, `done` or `failed`, with the error in one line."""

    swept: SweepRun
    status: str
    error: str = ""

    def to_plain(self) -> dict[str, Any]:
        """JSON-like data."""
        return {"name": self.swept.name, "values": dict(self.swept.values), "status": self.status, "error": self.error or None}


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
    """Run everything that is not done, and print the table of all that are. Raises SpecError and others before anything starts.

    A failed run does not stop the others; JobError names them in the end.
    """
    settings = exported()
    store = open_store(settings.storage)
    base = begun(recipe, file)
    runs = runs_of(settings, base, name, changes, parse_grid(over), force=force, cache=None if dry_run else settings.cache)
    if dry_run:
        _print_plan(settings, store, runs, as_json=as_json)
        return
    warn_of_services(settings)
    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        outcomes = run_each(runs, store, partial(_runner, settings, recipe, force))
    _print_table(store, outcomes, as_json=as_json)
    if failed := [outcome for outcome in outcomes if outcome.status == FAILED]:
        said = "; ".join(f"{outcome.swept.name} ({outcome.error})" for outcome in failed)
        raise JobError(f"sweep: {len(failed)} of {len(runs)} runs failed: {said}; the same command tries them again")


def runs_of(
    settings: Settings,
    base: ExperimentSpec,
    name: str | None,
    changes: dict[str, Any],
    grid: Mapping[str, list[Any]],
    *,
    force: bool = False,
    cache: Path | None = None,
) -> list[SweepRun]:
    """Every combination of the grid, checked as `run` checks its spec. Raises what it raises, a line per error with the name of its run.

    Without a `cache` for decoded images nothing is written.
    """
    if not grid:
        raise not_allowed("--over", "none", "one or more of FIELD=VALUE,VALUE, e.g. fanout.train.lr=0.05,0.1")
    if both := sorted(set(grid) & set(changes)):
        raise not_allowed("--over", both[0], "a field that --set does not name")
    name = name or f"sweep-{fingerprint(override(base, changes))}"
    listed = {field for field in grid if isinstance(value_at(base, field), list)}
    runs, errors = [], []
    for values in itertools.product(*grid.values()):
        chosen = {
            field: [value] if field in listed and not isinstance(value, list) else value for field, value in zip(grid, values, strict=True)
        }
        run = swept_name(name, chosen)
        try:
            spec, _ = checked(settings, base, run, {**changes, **chosen}, force=force)
            if settings.ray_address is None:
                check_local_data(spec, cache)
        except AutosparseError as error:
            errors += [(type(error), f"{run}: {line}") for line in str(error).splitlines()]
        else:
            runs.append(SweepRun(name=run, values=chosen, spec=spec))
    if errors:
        raise errors[0][0]("\n".join(line for _, line in errors))
    return runs


def swept_name(sweep: str, values: Mapping[str, Any]) -> str:
    """The name of a run, the same for the same values: `NAME-lr-0_05`; a digest stands for what a name cannot spell."""
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


def run_each(runs: Sequence[SweepRun], store: Store, runner: Callable[[], Callable[[SweepRun], None]]) -> list[Outcome]:
    """What becomes of each; `runner` starts what runs them, and is asked only where one is to be run."""
    run: Callable[[SweepRun], None] | None = None
    outcomes = []
    for number, swept in enumerate(runs, start=1):
        if swept.done(store):
            outcomes.append(Outcome(swept=swept, status=DONE))
            continue
        _say(f"run {number} of {len(runs)}: {swept.name}")
        try:
            run = run or runner()
            run(swept)
            outcomes.append(Outcome(swept=swept, status=RAN))
        except Exception as error:
            said = (str(error).splitlines() or [""])[0]
            outcomes.append(Outcome(swept=swept, status=FAILED, error=f"{type(error).__name__}: {said}"))
            sys.stderr.write(f"run {number} of {len(runs)}: {swept.name} failed: {said}\n")
    return outcomes


def _runner(settings: Settings, recipe: str | None, force: bool) -> Callable[[SweepRun], None]:
    pipeline = started(settings)

    def run(swept: SweepRun) -> None:
        say_plan(settings, swept.spec, RunPaths(swept.name))
        run_checked(settings, pipeline, swept.spec, swept.name, recipe, force=force)

    return run


def _print_plan(settings: Settings, store: Store, runs: Sequence[SweepRun], *, as_json: bool) -> None:
    """Every run and what is left of it, by what storage knows."""
    plans = [stored_plan(store, RunPaths(swept.name), swept.spec, machine(), quick=True) for swept in runs]
    if as_json:
        found = [
            {
                "name": swept.name,
                "values": dict(swept.values),
                "to_do": len(plan.to_do),
                "trainings": plan.trainings,
                "seconds": plan.seconds,
            }
            for swept, plan in zip(runs, plans, strict=True)
        ]
        _say(json.dumps({"runs": found}, indent=2))
        return
    for swept, plan in zip(runs, plans, strict=True):
        values = ", ".join(f"{field}={json.dumps(value)}" for field, value in swept.values.items())
        _say(f"{swept.name}: {values}: {plan.line(timed=settings.ray_address is None)}")
    _say(f"{len(runs)} runs, {sum(plan.trainings for plan in plans)} trainings to do")


def _print_table(store: Store, outcomes: Sequence[Outcome], *, as_json: bool) -> None:
    there = [outcome.swept for outcome in outcomes if outcome.status != FAILED]
    table = result_table(store, [swept.name for swept in there], list(there[0].values)) if there else None
    if as_json:
        runs = [outcome.to_plain() for outcome in outcomes]
        _say(json.dumps({"runs": runs, "table": table.to_plain() if table else None}, indent=2))
    elif table:
        _say(markdown_text(table).rstrip())


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _slug(text: str) -> str:
    return re.sub("[^a-z0-9_]+", "-", text.lower().replace(".", "_")).strip("-")


def _digest(text: str, length: int = 6) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]
