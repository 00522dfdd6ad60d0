"""Subflow: fit the scorer on the feature data set, evaluate it on held-out seeds and layers, register it."""

from typing import Any

from prefect import flow
from prefect.states import Completed

from autosparse.tasks.engine.run import Run
from autosparse.tasks.engine.step import Report
from autosparse.tasks.fit_scorer import fit_scorer
from autosparse.tasks.register_scorer import register_scorer
from autosparse.tasks.results.said import said


@flow(name="scorer-training", flow_run_name="scorer {title}", validate_parameters=False)
def scorer_training(run: Run, dataset: Report, title: str) -> Any:
    """The report of the registration: held-out metrics and the version in the model registry."""
    with run.interruptible():
        fitted = fit_scorer.submit(run, dataset, f"fit scorer {run.spec.scorer.kind}").result()
        registered = register_scorer.submit(run, dataset, fitted, "register scorer").result()
        return Completed(message=said(registered), data=registered)
