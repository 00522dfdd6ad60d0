"""Bring MLflow what a run could not tell it: first the spool, then from storage what no spool of this machine has."""

import time

from autosparse.models.errors import DataError
from autosparse.models.specs.experiment import ExperimentSpec, plain_spec, stored_spec
from autosparse.storage import paths, reports
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Store
from autosparse.tasks.checks.cleared import check_not_cleared
from autosparse.tasks.checks.leak_check import check_leaks, seeds_of_arms
from autosparse.tasks.engine.lock import alone
from autosparse.tasks.engine.step import Report
from autosparse.tasks.register_scorer import register
from autosparse.tasks.report.notes import run_note, step_note
from autosparse.tasks.results.arm_reports import opened
from autosparse.tasks.settings import Settings
from autosparse.tasks.tracking.tracker import Tracker


def sync_run(settings: Settings, name: str) -> Report:
    """Records handed over, steps made up for, and the scorer's version (None where nothing was fitted). Twice is as once.

    Raises DataError where there is no such run, ConflictError while it is at work, ServiceError while MLflow is away.
    """
    store, run = open_store(settings.storage), RunPaths(name)
    if not store.exists(run.run):
        raise DataError(f"run: {name!r} has no {run.run} in {store.root}")
    check_not_cleared(store, run)
    with alone(settings, name, "sync once it has ended"):
        return _sync(settings, store, run)


def _sync(settings: Settings, store: Store, run: RunPaths) -> Report:
    ids = store.read_json(run.run)
    spec = stored_spec(store.read_json(run.spec)["spec"])
    tags = {"autosparse.run": run.name, "prefect.flow_run_id": ids["prefect_flow_run_id"], "ray.job_id": ids["ray_job_id"]}
    tracker = Tracker(settings, tags)
    with tracker.closing():
        waited = tracker.spool.waiting
        if not tracker.spool.drain(tracker.patience):
            raise tracker.away("sync")
        tracker.sweep("KILLED")
        root = tracker.adopt("run", ids["mlflow_run_id"]) if ids["mlflow_run_id"] else None
        parent = root or tracker.open("run", run.name)
        made = [step for step in reports.steps(store, run.root) if _make_up(tracker, store, run, parent, step)]
        if not root:
            tracker.parameters(parent, plain_spec(spec))
            tracker.file(parent, "spec.json", store.read(run.spec))
        if made or not root:
            tracker.describe(parent, _note(store, run, spec, ids))
        version = _register(tracker, store, run, spec, parent)
    return {"records": waited, "steps": len(made), "version": version}


def _make_up(tracker: Tracker, store: Store, run: RunPaths, parent: str, step: str) -> bool:
    """Whether MLflow had no finished run of a finished step; it gets one with the figures and files of the report."""
    if tracker.finished(step):
        return False
    report = store.read_json(paths.report(step))
    own = tracker.open(step, run.within(step), parent=parent)
    tracker.metrics(own, {key: value for key, value in report.items() if isinstance(value, int | float) and not isinstance(value, bool)})
    tracker.file(own, "report.json", store.read(paths.report(step)))
    if store.exists(paths.mask(step)):
        tracker.file(own, "mask.safetensors", store.read(paths.mask(step)))
    if step == run.summary:
        for key in store.list(step):
            tracker.file(parent, f"summary/{key.rsplit('/', 1)[-1]}", store.read(key))
    tracker.describe(own, step_note(report))
    tracker.close(own)
    return True


def _note(store: Store, run: RunPaths, spec: ExperimentSpec, ids: Report) -> str:
    summary = reports.find(store, run.summary)
    return run_note(spec, run.name, prefect=ids.get("prefect_url"), rows=[opened(row) for row in summary["rows"]] if summary else None)


def _register(tracker: Tracker, store: Store, run: RunPaths, spec: ExperimentSpec, parent: str) -> str | None:
    """The registration of a fitted scorer, as its step would have done it."""
    fitted, dataset, done = (reports.find(store, step) for step in (run.scorer, run.features, run.registration))
    if done or not fitted or not dataset:
        return done["version"] if done else None
    check_leaks(store.read_json(paths.scorer_card(run.scorer)), seeds_of_arms(store, run, spec))
    start = time.monotonic()
    own = tracker.open(run.registration, "register scorer", parent=parent)
    report = register(tracker, store, run, spec, dataset, fitted)
    tracker.describe(own, step_note(report))
    reports.save(store, run.registration, {**report, "seconds": time.monotonic() - start, "mlflow_run_id": tracker.run_id(own)})
    tracker.close(own)
    return report["version"]
