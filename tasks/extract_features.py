"""The task that joins initial state and survival of all sources into one feature data set."""

from prefect import task

from autosparse.models.arms.plan import sources
from autosparse.models.specs.fields import fingerprint
from autosparse.tasks.cluster.jobs import run_remote
from autosparse.tasks.engine.run import Run
from autosparse.tasks.engine.step import TASK, Report, Step, run_step
from autosparse.tasks.worker import extract_features as worker


@task(**TASK)
def extract_features(run: Run, title: str) -> Report:
    """Write the feature data set of the run: uri, digest and rows in the report, lineage in MLflow."""
    spec = run.spec
    parts = tuple(
        worker.Source(network=network, seed=seed, folder=run.paths.source(network.label, seed)) for network, seed in sources(spec)
    )

    def work(step: Step) -> Report:
        inputs = worker.FeaturesInputs(irp=spec.irp, data=spec.data, sources=parts, fingerprint=fingerprint(spec))
        report = run_remote(
            run.cluster,
            name=step.job_name,
            body=worker.extract_features,
            config=run.config(inputs),
            job=spec.irp.job,
            on_event=step.on_event,
        )
        run.tracker.metrics(step.mlflow_run, {"rows": report["rows"]})
        run.tracker.features(step.mlflow_run, report, "written")
        return report

    return run_step(run, run.paths.features, title, work)
