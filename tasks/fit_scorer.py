"""The task that fits the scorer: one Ray Train job that streams the feature data set."""

import json

from prefect import task

from autosparse.models.specs.fields import to_plain
from autosparse.storage import paths
from autosparse.tasks.engine.run import Run
from autosparse.tasks.engine.step import TASK, Report, Step, run_step, table_artifact
from autosparse.tasks.report.model_card import comparison, figures
from autosparse.tasks.worker import fit_scorer as worker


@task(**TASK)
def fit_scorer(run: Run, dataset: Report, title: str) -> Report:
    """The fitted scorer's held-out metrics; its files lie beside the report."""
    scorer = run.spec.scorer

    def work(step: Step) -> Report:
        config = run.config(worker.FitInputs(scorer=scorer, dataset=dataset["uri"], data=run.spec.data.title, folder=run.paths.scorer))
        report = step.train(worker.fit, config, scorer.job)
        run.tracker.features(step.mlflow_run, dataset, "scorer-train")
        run.tracker.metrics(step.mlflow_run, figures(report["metrics"]))
        run.tracker.file(step.mlflow_run, "scorer.safetensors", run.store.read(paths.scorer_weights(run.paths.scorer)))
        run.tracker.file(step.mlflow_run, "scorer.json", run.store.read(paths.scorer_card(run.paths.scorer)))
        run.tracker.file(step.mlflow_run, "metrics.json", json.dumps(report["metrics"], indent=2).encode())
        table_artifact(f"{run.name}-scorer", comparison(report), "Held-out figures of the scorer and of plain formulas")
        return {**report, "dataset": dataset["digest"]}

    return run_step(run, run.paths.scorer, title, work, parameters=to_plain(scorer))
