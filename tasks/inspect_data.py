"""The task that opens a data set before anything is trained, and holds a resumed run to the same content."""

from collections.abc import Callable

from prefect import task

from autosparse.models.errors import ConflictError
from autosparse.models.specs.run_specs import DataSpec
from autosparse.storage import reports
from autosparse.tasks.checks.preflight import networks_of
from autosparse.tasks.cluster.connection import Event
from autosparse.tasks.cluster.jobs import run_remote
from autosparse.tasks.engine import progress
from autosparse.tasks.engine.run import Run, log
from autosparse.tasks.engine.step import TASK, Report, run_step
from autosparse.tasks.worker import inspect_data as worker


@task(**TASK)
def inspect_data(run: Run, data: DataSpec, label: str, title: str) -> Report:
    """Counts, shape, classes, content digest, and what was left out, which is said each time; a dry run of the networks that see it.

    Raises ConflictError when the run was begun on other content, SpecError for a network that would fail later.
    """
    key = run.paths.data(label)

    def look(on_event: Callable[[Event], None]) -> Report:
        networks = tuple(worker.Named(field=field, network=network) for field, network, seen in networks_of(run.spec) if seen == data)
        config = run.config(worker.DataInputs(data=data, networks=networks))
        report = run_remote(
            run.cluster, name=f"data-{label}", body=worker.inspect_data, config=config, job=run.spec.irp.job, on_event=on_event
        )
        for note in report.get("notes", ()):
            progress.emit("warning", key, f"{title}: {note}")
            log().warning("%s: %s", title, note)
        return report

    if before := reports.find(run.store, key):
        there, now = before["digest"], look(lambda event: None)["digest"]
        if now != there:
            raise ConflictError(f"{label}.path: {now} is the digest of {data.title}; allowed: {there}, or another --name for this run")
    return run_step(run, key, title, lambda step: look(step.on_event))
