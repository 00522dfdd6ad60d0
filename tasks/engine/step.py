"""How every step runs: look for its report, else do the work, tell MLflow, the log and the progress, write the report last."""

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed
from prefect.tasks import exponential_backoff

from autosparse.models.errors import AutosparseError, DivergedError, ServiceError
from autosparse.models.specs.run_specs import JobSpec
from autosparse.storage import paths, reports
from autosparse.storage.store import dump_json
from autosparse.tasks.cluster.connection import Event
from autosparse.tasks.cluster.jobs import run_training_job
from autosparse.tasks.cluster.launcher import Loop
from autosparse.tasks.cluster.series import Series
from autosparse.tasks.engine import progress
from autosparse.tasks.engine.run import Run, log
from autosparse.tasks.report.notes import failure_note, step_note
from autosparse.tasks.results.measured import metric_of, value_of
from autosparse.tasks.results.said import said

Report = dict[str, Any]
Work = Callable[["Step"], Report]


def is_transient(task: Any, task_run: Any, state: State[Any]) -> bool:
    """Whether a failed task is worth another try: only when a service was away."""
    try:
        state.result()
    except ServiceError:
        return True
    except BaseException:
        return False
    return False


# What all tasks of the pipeline have in common: storage remembers what is done, so Prefect's own cache stays out of it. No tags:
# Prefect asks its server for a slot of each tag before a task begins, and a server that is away for a minute would fail the task.
TASK: dict[str, Any] = {
    "task_run_name": "{title}",
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(2),
    "retry_condition_fn": is_transient,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}


class Step:
    """A step under way: its key, its MLflow run, and a listener for the events of its job."""

    def __init__(self, run: Run, key: str, title: str, mlflow_run: str) -> None:
        self.run = run
        self.key = key
        self.title = title
        self.mlflow_run = mlflow_run
        self.diverged = False
        self._log = log()

    @property
    def job_name(self) -> str:
        """The name of the step's Ray job."""
        return self.run.paths.job(self.key)

    def train(self, loop: Loop, config: dict[str, Any], job: JobSpec) -> Report:
        """Run the step's Ray Train job to its end; its checkpoints lie below the run until the step's report is written."""
        try:
            return run_training_job(
                self.run.cluster,
                self.run.store,
                name=self.job_name,
                folder=self.run.paths.training,
                loop=loop,
                config=config,
                job=job,
                on_event=self.on_event,
            )
        except AutosparseError as error:
            self._failed(error)
            raise

    def train_in(self, series: Series, body: Loop, config: dict[str, Any], group: str, *, alone: bool = False) -> Report:
        """As `train`, in a job that does other steps before and after; `alone` = on one worker, whatever the shape of the job."""
        try:
            return series.run(
                name=self.job_name,
                body=body,
                config=config,
                group=group,
                alone=alone,
                earlier=tuple(self.run.paths.checkpoints(self.key)),
                on_event=self.on_event,
            )
        except AutosparseError as error:
            self._failed(error)
            raise

    def _failed(self, error: AutosparseError) -> None:
        self.diverged = isinstance(error, DivergedError)
        if error.details:
            self._keep_details(error)

    def _keep_details(self, error: AutosparseError) -> None:
        """Leave what the training looked like when it failed beside the step and in MLflow."""
        known = {"error": type(error).__name__, "message": str(error), **error.details}
        self.run.store.write_json(paths.failure(self.key), known)
        try:
            self.run.tracker.file(self.mlflow_run, "failure.json", dump_json(known))
        except Exception as failure:
            self._log.warning("%s: MLflow did not take failure.json (%s)", self.title, failure)

    def drop_checkpoints(self) -> None:
        """Delete what only a resumed job would have read; the last checkpoint before a divergence stays."""
        if self.diverged:
            return
        for folder in self.run.paths.checkpoints(self.key):
            self.run.store.delete(folder)

    def on_event(self, event: Event) -> None:
        """Pass on what a worker tells. Never raises: a lost line must not end a training."""
        if event["kind"] == "epoch":
            measured = event["metrics"]  # the one that counts first
            line = f"{self.title}: epoch {event['epoch'] + 1}/{event['epochs']}, loss {event['loss']:.4f}"
            line += "".join(f", {name} {event[name]:.4f}" for name in measured[:1])
            where = {"epoch": event["epoch"] + 1, "epochs": event["epochs"]}
            shown = measured[0] if measured else "loss"  # test examples are not looked at after every epoch
            progress.emit("epoch", self.key, self.title, **where, metric=shown, value=event[shown])
            values = {name: event[name] for name in ("loss", *measured, "lr", "seconds")}
            values |= {f"method/{name}": value for name, value in event.get("facts", {}).items()}
            try:
                self.run.tracker.metrics(self.mlflow_run, values, step=event["epoch"] + 1)
            except Exception as error:  # a full disk
                self._log.warning("%s: epoch %d is not noted for MLflow (%s)", self.title, event["epoch"] + 1, error)
        else:
            line = f"{self.title}: {event.get('message', event['kind'])}"
            progress.emit("restarted" if event["kind"] == "restart" else "note", self.key, line)
        self._log.info(line)


def run_step(run: Run, key: str, title: str, work: Work, *, parameters: Mapping[str, Any] | None = None) -> Any:
    """The report of a step as the task's state: `Cached` when storage has it already, else the result of `work(step)`.

    Callers take the report out of the future (`task.submit(...).result()`): a direct call of a task would hand them the state.

    `seconds` in the report is the wall time of the step with all its overhead.
    """
    if done := reports.find(run.store, key):
        progress.emit("cached", key, title, **_figures(done))
        return Completed(name="Cached", message=f"from storage: {said(done)}", data=done)
    start = time.monotonic()
    mlflow_run = run.tracker.open(key, title, parent=run.mlflow_run)
    progress.emit("started", key, title)
    step = Step(run, key, title, mlflow_run)
    try:
        run.tracker.parameters(mlflow_run, dict(parameters or {}))
        report = work(step)
        report = reports.save(
            run.store, key, {**report, "seconds": time.monotonic() - start, "mlflow_run_id": run.tracker.run_id(mlflow_run)}
        )
        step.drop_checkpoints()
        run.tracker.metrics(mlflow_run, {"step_seconds": report["seconds"]})
        run.tracker.describe(mlflow_run, step_note(report))
    except BaseException as error:
        if isinstance(error, Exception) and not run.cluster.stopped:
            run.tracker.describe(mlflow_run, failure_note(error))
        progress.emit("failed", key, title, message=str(error))
        run.tracker.close(mlflow_run, "KILLED" if run.cluster.stopped or not isinstance(error, Exception) else "FAILED")
        raise
    run.tracker.close(mlflow_run)
    progress.emit("finished", key, title, **_figures(report))
    return Completed(message=said(report), data=report)


def artifact_key(name: str) -> str:
    """A name as Prefect allows it in artifact keys."""
    return re.sub(r"[^a-z0-9-]+", "-", name)


def table_artifact(key: str, rows: list[dict[str, Any]], description: str) -> None:
    """A table in the Prefect UI; best effort, because the numbers are in storage and MLflow as well."""
    try:
        create_table_artifact(rows, key=artifact_key(key), description=description)
    except Exception as error:
        log().warning("Prefect did not take the table %s (%s)", key, error)


def _figures(report: Report) -> dict[str, Any]:
    """Of an arm or a round, for the console."""
    measured = {metric_of(report).name: value_of(report)} if "accuracy" in report or "metrics" in report else {}
    return measured | {name: report[name] for name in ("density", "seconds", "status") if name in report}
