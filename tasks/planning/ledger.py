"""What earlier work has measured: rates out of the reports of a run, and of earlier runs in the same storage."""

import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from autosparse.models.errors import AutosparseError
from autosparse.models.methods.names import trains
from autosparse.models.specs.experiment import ExperimentSpec, stored_spec
from autosparse.storage import paths, reports
from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Store
from autosparse.tasks.planning import steps as kinds
from autosparse.tasks.planning.costs import FIXED_S, MORE_EPOCHS, SERIES, Examples, Pace, Rates, fitted_rows, units_in
from autosparse.tasks.planning.steps import PlannedStep, steps_of
from autosparse.tasks.results.run_view import last_runs

Report = dict[str, Any]
EARLIER = 3  # runs that are looked through
MOST = 6  # reports of a kind that are read of each of them
FEW = 6  # arms: the first ones waited for their process, so that fewer do not tell what an arm takes
OK = "ok"


class Ledger:
    """Measurements as they are read; `rates` are their medians. What a run says of itself is not mixed with what others say."""

    def __init__(self, rows: dict[str, int]) -> None:
        self.rows = rows
        self.steps: dict[Pace, list[float]] = defaultdict(list)
        self.methods: dict[tuple[str, str], list[tuple[Pace, float]]] = defaultdict(list)
        self.scorings: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.beside: dict[str, list[float]] = defaultdict(list)
        self.fits: list[tuple[float, float]] = []  # seconds, rows over all epochs
        self.examples: dict[Any, Examples] = {}
        self.trainings = 0

    def take(self, step: PlannedStep, report: Report, spec: ExperimentSpec) -> None:
        """Note what the report of a step says."""
        seconds = report["seconds"]
        if step.kind == kinds.DATA and step.data:
            self.examples[step.data] = Examples(report["train"], report["test"])
        if step.kind in (kinds.ROUND, kinds.ARM):
            self._training(step, report)
        elif step.kind == kinds.SCORING and step.network and "scoring_seconds" in report:
            self.scorings[step.network.label, step.method or ""].append(report["scoring_seconds"])
            self.beside[step.kind].append(seconds - report["scoring_seconds"])
        elif step.kind == kinds.FIT and (rows := fitted_rows(spec, self.rows)):
            self.fits.append((seconds, rows * (spec.scorer.epochs + MORE_EPOCHS)))
        elif step.kind in (kinds.DATA, kinds.REGISTRATION, kinds.SUMMARY):
            self.beside[step.kind].append(seconds)

    def _training(self, step: PlannedStep, report: Report) -> None:
        examples = self.examples.get(step.data)
        if examples is None or not report.get("epochs") or report.get("status", OK) != OK:
            return
        assert step.network and step.data and step.train
        training = sum(epoch["seconds"] for epoch in report["epochs"])
        pace, units = Pace.of(step.network, step.data, step.train, step.job), units_in(step.train, examples, step.start)
        self.trainings += 1
        self.beside[step.kind].append(report["seconds"] - training)
        if step.kind == kinds.ARM and step.method and trains(step.method):
            self.methods[step.network.label, step.method].append((pace, training / units))
        else:
            self.steps[pace].append(training / units)

    def rates(self) -> Rates:
        """Medians; but arms that waited for the process of their job say how long that takes, and a quarter of them did not wait."""
        steps = {pace: statistics.median(found) for pace, found in self.steps.items()}
        beside = {kind: statistics.median(found) for kind, found in self.beside.items()}
        if len(self.beside[kinds.ARM]) >= FEW:
            beside[kinds.ARM] = sorted(self.beside[kinds.ARM])[len(self.beside[kinds.ARM]) // 4]
        else:
            beside.pop(kinds.ARM, None)
        slowness = statistics.median(found / FIXED_S[kind] for kind, found in beside.items()) if beside else None
        if self.fits:
            beside[kinds.FIT] = min(min(self.fits)[0], FIXED_S[kinds.FIT] * (slowness or 1.0))
        if waits := [*self.beside[kinds.SCORING], *self.beside[kinds.ARM]]:
            beside[SERIES] = max(waits) - min(waits)
        methods = {
            name: statistics.median(one / steps[pace] for pace, one in found)
            for name, found in self.methods.items()
            if all(pace in steps for pace, _ in found)
        }
        return Rates(
            steps=steps,
            row=statistics.median((seconds - beside[kinds.FIT]) / rows for seconds, rows in self.fits) if self.fits else None,
            rows=self.rows,
            scorings={name: statistics.median(found) for name, found in self.scorings.items()},
            methods=methods,
            fixed=beside,
            slowness=slowness,
            examples=self.examples,
        )


def known_rates(
    store: Store, run: RunPaths, spec: ExperimentSpec, rows: dict[str, int], *, earlier: int = EARLIER
) -> tuple[Rates, list[str], set[str]]:
    """Rates from this run's reports, gaps filled from `earlier` runs in the storage; where they come from; this run's steps that are done.

    Earlier runs are asked for what trainings take on the same network, data and batches; starts are alike whatever is trained.
    """
    done = set(reports.steps(store, run.root))
    ledger = Ledger(rows)
    _read(store, ledger, spec, run, done)
    rates, said = ledger.rates(), [f"trainings of this run ({ledger.trainings})"] if ledger.trainings else []
    for name in _earlier(store, run, earlier):
        other = Ledger(rows)
        try:
            their = stored_spec(store.read_json(RunPaths(name).spec)["spec"])
            _read(store, other, their, RunPaths(name), set(reports.steps(store, RunPaths(name).root)), most=MOST)
        except (AutosparseError, KeyError, TypeError):  # of another version, half written, or of modules that are not here
            continue
        if fill(rates, other.rates()):
            said.append(f"run {name}")
    return rates, said, done


def fill(rates: Rates, more: Rates) -> bool:
    """Take over what is not known yet; whether there was any of it about trainings."""
    new = bool(set(more.steps) - set(rates.steps))
    for name in ("steps", "passes", "rows", "scorings", "methods", "fixed", "examples"):
        ours = getattr(rates, name)
        ours |= {key: value for key, value in getattr(more, name).items() if key not in ours}
    for name in ("row", "slowness"):
        setattr(rates, name, getattr(more, name) if getattr(rates, name) is None else getattr(rates, name))
    return new


def _earlier(store: Store, run: RunPaths, most: int) -> list[str]:
    return [name for name in last_runs(store, most + 1) if name != run.name][:most] if most else []


def _read(store: Store, ledger: Ledger, spec: ExperimentSpec, run: RunPaths, done: Iterable[str], *, most: int | None = None) -> None:
    there, seen = set(done), defaultdict(int)
    for step in steps_of(spec, run):
        if step.key in there and (most is None or seen[step.kind] < most):
            seen[step.kind] += 1
            ledger.take(step, store.read_json(paths.report(step.key)), spec)
