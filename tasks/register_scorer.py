"""The task that puts the scorer into the MLflow model registry and lets the best one be champion."""

from prefect import task

from autosparse.library.scorer_files import load_scorer
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import to_plain
from autosparse.storage import paths
from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Store
from autosparse.tasks.checks.leak_check import check_leaks, seeds_of_arms
from autosparse.tasks.engine.run import Run, log
from autosparse.tasks.engine.step import TASK, Report, Step, run_step
from autosparse.tasks.report.model_card import figures, model_card
from autosparse.tasks.tracking.registry import FEATURES, LONGEST_DIGEST, Facts
from autosparse.tasks.tracking.tracker import Tracker, flatten

METRIC = "spearman_pooled"


def held_out(metrics: Report) -> float:
    """The figure by which scorers are ranked: pooled Spearman on held-out seeds, or on held-out layers where no seed was held out."""
    return metrics["seeds" if "seeds" in metrics else "layers"][METRIC]


def kept_for(card: Report) -> dict[str, str]:
    """What a scorer is for, as tags of its version: data, label, source networks, what was held out; `rows` that it learned from.

    Cards of earlier versions say less.
    """
    metadata, sources = card.get("metadata", {}), card.get("trained_on", {}).get("sources", ())
    known = {"data": card.get("data"), "label": card.get("label"), "data_digest": metadata.get("data_digest")}
    known |= {"sources": ", ".join(sources), "rows": card.get("dataset", {}).get("rows")}
    known |= {"held_out_on": next((group for group in ("seeds", "layers") if group in card.get("metrics", {})), None)}
    return {name: str(text) for name, text in known.items() if text}


@task(**TASK)
def register_scorer(run: Run, dataset: Report, fitted: Report, title: str) -> Report:
    """One version of `autosparse-scorer`; the alias `champion` moves as `autosparse.tasks.tracking.champion` has it.

    Raises LeakError, before MLflow hears of the step, where training, held-out and test seeds meet; asked again on a resumed run,
    when there are arms.
    """
    check_leaks(run.store.read_json(paths.scorer_card(run.paths.scorer)), seeds_of_arms(run.store, run.paths, run.spec))

    def work(step: Step) -> Report:
        report = register(run.tracker, run.store, run.paths, run.spec, dataset, fitted)
        version, value, champion = report["version"], report["held_out"], report["champion"]
        log().info("scorer version %s, held-out %s %.4f, %s", version, METRIC, value, "champion" if champion else "the champion stays")
        return report

    return run_step(run, run.paths.registration, title, work)


def register(tracker: Tracker, store: Store, run: RunPaths, spec: ExperimentSpec, dataset: Report, fitted: Report) -> Report:
    """Register the scorer of a run that was fitted on that data set; what the step's report says of it."""
    _, card = load_scorer(store, run.scorer)  # what cannot be loaded is not registered
    value = held_out(fitted["metrics"])
    tags = {"dataset_digest": dataset["digest"], "held_out": f"{value:.6f}", "metric": METRIC, "kind": fitted["kind"], **kept_for(card)}
    files = {key.rsplit("/", 1)[-1]: store.read(key) for key in (paths.scorer_card(run.scorer), paths.scorer_weights(run.scorer))}
    facts = Facts(
        tags=tags,
        parameters=parameters_of(spec, card),
        metrics={"held_out": value, **figures(fitted["metrics"])},
        dataset=(FEATURES, dataset["digest"][:LONGEST_DIGEST]),
        card=model_card(run.name, spec, card, fitted),
    )
    version, champion = tracker.register(tracker.digest_of(run.scorer), files, facts)
    return {"metrics": fitted["metrics"], "version": version, "champion": champion, "held_out": value, "dataset": dataset["digest"]}


def parameters_of(spec: ExperimentSpec, card: Report) -> dict[str, str]:
    """Of the scorer's model: its spec, what it learned from, the features that it sees."""
    irp, described = spec.irp, card.get("scorer", {})
    known = flatten(to_plain(spec.scorer)) | {
        "features": ", ".join(described.get("features", ())),
        "features_version": described.get("features_version"),
        "sources": ", ".join(network.label for network in irp.networks),
        "irp.rounds": irp.rounds,
        "irp.final_density": irp.final_density,
        "data": spec.data.title,
    }
    return {name: str(value) for name, value in known.items()}
