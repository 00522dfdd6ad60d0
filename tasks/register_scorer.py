"""The task that puts the scorer into the MLflow model registry and lets the best one be champion."""

import torch
from prefect import task

from models.features import FEATURE_NAMES
from storage import paths
from tasks.leak_check import check_leaks, seeds_of_arms
from tasks.run import Run, log
from tasks.steps import TASK, Report, Step, run_step
from tasks.worker.scorer_files import load_scorer

METRIC = "spearman_pooled"


def held_out(metrics: Report) -> float:
    """The figure by which scorers are ranked: pooled Spearman on held-out seeds, or on held-out layers where no seed was held out."""
    return metrics["seeds" if "seeds" in metrics else "layers"][METRIC]


@task(**TASK, tags=["scorer"])
def register_scorer(run: Run, dataset: Report, fitted: Report, title: str) -> Report:
    """One version of `autosparse-scorer`; the alias `champion` moves only when the held-out metric improves.

    Raises LeakError, before MLflow hears of the step, where training, held-out and test seeds meet; asked again on a resumed run,
    when there are arms.
    """
    check_leaks(run.store.read_json(paths.scorer_card(run.paths.scorer)), seeds_of_arms(run.store, run.paths, run.spec))

    def work(step: Step) -> Report:
        scorer, _ = load_scorer(run.store, run.paths.scorer)
        value = held_out(fitted["metrics"])
        tags = {"dataset_digest": dataset["digest"], "held_out": f"{value:.6f}", "metric": METRIC, "kind": fitted["kind"]}
        version, champion = run.tracker.register(
            fitted["mlflow_run_id"],
            scorer,
            example=torch.zeros(2, len(FEATURE_NAMES)),
            files=run.paths.scorer,
            store=run.store,
            tags=tags,
            value=value,
        )
        log().info("scorer version %s, held-out %s %.4f, %s", version, METRIC, value, "champion" if champion else "the champion stays")
        return {"metrics": fitted["metrics"], "version": version, "champion": champion, "held_out": value, "dataset": dataset["digest"]}

    return run_step(run, f"{run.paths.scorer}/registration", title, work)
