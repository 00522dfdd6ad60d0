"""The task that opens a data set before anything is trained, and holds a resumed run to the same content."""

from prefect import task

from models.errors import ConflictError
from models.spec_fields import to_plain
from models.specs import DataSpec
from storage import reports
from tasks.cluster import run_remote
from tasks.run import Run
from tasks.steps import TASK, Report, Step, run_step
from tasks.worker import inspect_data as worker


@task(**TASK, tags=["data"])
def inspect_data(run: Run, data: DataSpec, label: str, title: str) -> Report:
    """Counts, shape, classes and content digest. Raises ConflictError when the run was begun on other content."""
    key = run.paths.data(label)

    def look(step: Step) -> Report:
        config = run.config(data=to_plain(data))
        return run_remote(run.cluster, name=step.job_name, body=worker.inspect_data, config=config, job=run.spec.irp.job, on_event=step.on_event)

    before = reports.find(run.store, key)
    if before and any(run.store.list(run.paths.root + "/irp")):
        config = run.config(data=to_plain(data))
        now = run_remote(run.cluster, name=f"{label}-again", body=worker.inspect_data, config=config, job=run.spec.irp.job, on_event=lambda event: None)
        if now["digest"] != before["digest"]:
            raise ConflictError(
                f"data.path: {data.title} has digest {now['digest']}, run {run.name!r} began with {before['digest']}; allowed: the same images, or another --name"
            )
    return run_step(run, key, title, look)
