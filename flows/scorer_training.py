"""Subflow: fit the scorer on the feature data set, evaluate it on held-out seeds and layers, register it."""

from prefect import flow

from autosparse.tasks.engine.run import Run
from autosparse.tasks.engine.step import Report
from autosparse.tasks.fit_scorer import fit_scorer
from autosparse.tasks.register_scorer import register_scorer


@flow(name="scorer-training", flow_run_name="scorer {title}", validate_parameters=False)
def scorer_training(run: Run, dataset: Report, title: str) -> Report:
    """The report of the registration: held-out metrics and the version in the model registry."""
    with run.interruptible():
        fitted = fit_scorer.submit(run, dataset, f"fit scorer {run.spec.scorer.kind}").result()
        return register_scorer.submit(run, dataset, fitted, "register scorer").result()
