"""The task that compares the minima of two arms: probes on Ray, pictures to storage, MLflow and the Prefect UI."""

from typing import Any

from prefect import task
from prefect.artifacts import create_image_artifact

from autosparse.models.arms.arm import Arm
from autosparse.models.arms.plan import target_of
from autosparse.models.specs.fields import to_plain
from autosparse.storage import reports
from autosparse.tasks.cluster.jobs import run_remote
from autosparse.tasks.engine.run import Run, log
from autosparse.tasks.engine.step import TASK, Report, Step, artifact_key, run_step
from autosparse.tasks.report.valley_plots import pictures
from autosparse.tasks.results.arm_reports import step_of
from autosparse.tasks.results.comparisons import OK, Comparison, incomparable
from autosparse.tasks.worker import probe_pair as worker

SKIPPED = "skipped"
ARM_FACTS = ("dataset", "accuracy", "kept_density", "status")


@task(**TASK)
def compare_arms(run: Run, comparison: Comparison, title: str) -> Report:
    """Run every probe on the two networks; an arm that was not trained to its end makes a report that says so."""
    key, spec = comparison.key(run.paths), run.spec
    arms = {"first": comparison.first, "second": comparison.second}

    def work(step: Step) -> Report:
        known: Report = {side: describe(run, arm) for side, arm in arms.items()}
        known |= {
            "target": comparison.first.target,
            "same_seed": comparison.first.seed == comparison.second.seed,
            "same_start": comparison.first.start == comparison.second.start,
            "settings": to_plain(comparison.valley),
        }
        if reasons := [f"{arm.text}: {why}" for arm in arms.values() if (why := incomparable(run.store, run.paths, arm))]:
            return {**known, "status": SKIPPED, "reason": "; ".join(reasons)}
        target = target_of(spec, comparison.first.target)
        inputs = worker.PairInputs(
            network=target.network,
            data=spec.data_of(target),
            train=spec.fanout.train,
            valley=comparison.valley,
            seed=comparison.first.seed,
            first=step_of(run.paths, comparison.first),
            second=step_of(run.paths, comparison.second),
        )
        config, job = run.config(inputs), spec.fanout.job
        measured = run_remote(run.cluster, name=step.job_name, body=worker.probe_pair, config=config, job=job, on_event=step.on_event)
        report = {**known, "status": OK, **measured}
        run.tracker.metrics(step.mlflow_run, numbers(report))
        return {**report, "pictures": _store_pictures(run, step, report)}

    return run_step(run, key, title, work, parameters={side: arm.text for side, arm in arms.items()})


def describe(run: Run, arm: Arm) -> Report:
    """What a comparison's report says of one of its arms."""
    trained = reports.find(run.store, step_of(run.paths, arm)) or {}
    names = {"method": arm.method, "control": arm.control, "density": arm.density, "seed": arm.seed, "short": arm.short, "text": arm.text}
    return names | {name: trained.get(name) for name in ARM_FACTS}


def numbers(report: Report) -> dict[str, float]:
    """The single numbers of all records, `hessian/first/share` and so on."""
    found: dict[str, float] = {"lr_over_batch": report["lr_over_batch"]}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for name, part in value.items():
                walk(part, f"{path}/{name}" if path else name)
        elif isinstance(value, int | float):
            found[path] = float(value)

    walk(report["records"], "")
    return found


def _store_pictures(run: Run, step: Step, report: Report) -> list[str]:
    """The keys of all pictures; beside the report, in MLflow with the step and with the whole run."""
    found = []
    folder = run.paths.within(step.key)
    for kind in ("png", "svg"):
        for name, content in pictures(report, kind).items():
            run.store.write(f"{step.key}/{name}.{kind}", content)
            run.tracker.file(step.mlflow_run, f"{name}.{kind}", content)
            run.tracker.file(run.mlflow_run, f"{folder}/{name}.{kind}", content)
            found.append(f"{step.key}/{name}.{kind}")
    _show(run, step, [key.rsplit("/", 1)[-1] for key in found if key.endswith(".png")])
    return found


def _show(run: Run, step: Step, names: list[str]) -> None:
    try:
        for name in names:
            if url := run.tracker.picture_url(step.mlflow_run, name):
                key = artifact_key(f"{step.job_name}-{name.removesuffix('.png')}")
                create_image_artifact(url, key=f"{artifact_key(run.name)}-{key}", description=step.title)
    except Exception as error:
        log().warning("Prefect did not take the pictures of %s (%s)", step.title, error)
