"""The plan of a run in the Prefect UI, before its first round and again after it; best effort, because it is only told."""

from prefect.artifacts import create_markdown_artifact

from autosparse.tasks.cluster.jobs import run_remote
from autosparse.tasks.engine.run import Run, log
from autosparse.tasks.engine.step import artifact_key
from autosparse.tasks.planning.costs import START
from autosparse.tasks.planning.plan import RunPlan, measured_by, stored_plan
from autosparse.tasks.planning.probe import probed
from autosparse.tasks.planning.schedule import Place
from autosparse.tasks.worker.probe_pace import probe_pace


def show_plan(run: Run) -> None:
    """Say what is left of the run and what it costs. Where storage does not know, a few steps are timed on the cluster."""
    try:
        place = Place(cpus=run.cluster.cpus, gpus=run.cluster.gpus, name="the cluster")
        found = stored_plan(run.store, run.paths, run.spec, place, quick=True)
        if found.seconds is None:
            found = _probed(run, found)
        found.rates.fixed[START] = 0.0  # the run has started
        log().info("plan: %s", found.line())
        key = artifact_key(f"{run.name}-plan")
        create_markdown_artifact(found.markdown(), key=key, description=f"What {run.name} will cost, as known at this time")
    except Exception as error:
        log().warning("no plan (%s: %s)", type(error).__name__, error)


def _probed(run: Run, found: RunPlan) -> RunPlan:
    config = run.config(probed(run.spec, quick=True))
    job = run.spec.irp.job  # whose process has just opened the data, and is warm
    measured = run_remote(run.cluster, name="plan", body=probe_pace, config=config, job=job, on_event=lambda event: None)
    return measured_by(found, measured, "a few steps of each training on the cluster")
