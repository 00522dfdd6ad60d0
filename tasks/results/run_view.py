"""A run as one JSON-like object, put together from its stored reports; needs storage and nothing else."""

from typing import Any

from autosparse.models.errors import DataError
from autosparse.models.specs.experiment import ExperimentSpec, stored_spec
from autosparse.models.specs.run_specs import DENSE, TICKET
from autosparse.storage import paths, reports
from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Store

ROUND_FIELDS = ("source", "seed", "round", "density", "accuracy", "seconds")
MEASURED = ("metric", "metrics")  # of what is no image classification
ARM_FIELDS = (
    *("target", "dataset", "method", "density", "kept_density", "effective_density", "seed", "accuracy", "seconds", "status"),
    *("density_all", "density_own", "expected_density", "inference_macs", "training_macs", "training_seconds", "inference_seconds"),
    *("images_per_second", "peak_memory_bytes", "lr_over_batch", "reason"),
)


def view_run(store: Store, name: str) -> dict[str, Any]:
    """Spec, fingerprint, rounds, dataset, scorer, arms, summary, ids. Unfinished parts are empty. Raises DataError."""
    run = RunPaths(name)
    stored = record_of(store, run)
    spec = stored_spec(stored["spec"])
    ids = store.read_json(run.run) if store.exists(run.run) else {}
    dataset = reports.find(store, run.features)
    summary = reports.find(store, run.summary)
    return {
        "name": name,
        "spec": stored["spec"],
        "fingerprint": stored["fingerprint"],
        "rounds": _rounds(store, run, spec),
        "dataset": {key: dataset[key] for key in ("uri", "digest", "rows")} if dataset else None,
        "scorer": _scorer(store, run),
        "arms": _arms(store, run),
        "valley": _valley(store, run),
        "summary": summary["rows"] if summary else [],
        "controls": summary.get("controls", []) if summary else [],
        "frontier": summary.get("frontier", []) if summary else [],
        "ids": ids,
        "addresses": {
            "results": store.uri(run.summary),
            "picture": store.uri(run.summary_file("accuracy_density.png")) if summary else None,
            "report": store.uri(page) if store.exists(page := run.summary_file("report.html")) else None,
            "features": dataset["uri"] if dataset else None,
            "scorer": store.uri(run.scorer) if spec.irp.seeds else None,
            "MLflow": ids.get("mlflow_url"),
            "Prefect": ids.get("prefect_url"),
        },
    }


def spec_of_run(store: Store, name: str) -> ExperimentSpec:
    """The spec that a run was begun with. Raises DataError where there is no such run."""
    return stored_spec(record_of(store, RunPaths(name))["spec"])


def record_of(store: Store, run: RunPaths) -> dict[str, Any]:
    """What is written first of a run: its spec, and the fingerprint of it. Raises DataError where there is none."""
    if not store.exists(run.spec):
        known = last_runs(store)
        raise DataError(f"run: {run.name!r} is not in {store.uri(paths.RUNS)}; there are: {', '.join(known) or 'none'}")
    return store.read_json(run.spec)


def last_runs(store: Store, count: int = 10) -> list[str]:
    """Names of runs in the store, the last begun first."""
    keys = store.list(paths.RUNS)
    names = {name for key in keys if (name := paths.run_of(key)) and key == RunPaths(name).run}
    begun = {name: store.read_json(RunPaths(name).run).get("started", "") for name in names}
    return sorted(names, key=lambda name: begun[name], reverse=True)[:count]


def _rounds(store: Store, run: RunPaths, spec: ExperimentSpec) -> list[dict[str, Any]]:
    keys = (
        run.round(network.label, seed, index)
        for network in spec.irp.networks
        for seed in spec.irp.seeds
        for index in range(spec.irp.rounds)
    )
    found = (reports.find(store, key) for key in keys)
    return [{field: report.get(field) for field in ROUND_FIELDS} | _among(report, MEASURED) for report in found if report]


def _scorer(store: Store, run: RunPaths) -> dict[str, Any] | None:
    fitted, registered = reports.find(store, run.scorer), reports.find(store, run.registration)
    if not fitted:
        return None
    version = {key: registered[key] for key in ("version", "champion", "held_out")} if registered else {}
    return {"metrics": fitted["metrics"], "kind": fitted["kind"], "trained_on": fitted["trained_on"], **version}


def _valley(store: Store, run: RunPaths) -> list[dict[str, Any]]:
    """Comparisons of two arms, without the tables of planes: these stay in the report, whose address is there."""
    found = []
    for key in map(paths.report, reports.steps(store, run.valley)):
        report = store.read_json(key)
        records = {name: record for name, record in report.get("records", {}).items() if name != "plane"}
        images = [store.uri(picture) for picture in report.get("pictures", [])]
        found.append({**report, "records": records, "pictures": images, "report": store.uri(key)})
    return found


def _among(report: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    return {field: report[field] for field in fields if field in report}


def _arms(store: Store, run: RunPaths) -> list[dict[str, Any]]:
    found = [store.read_json(paths.report(step)) for step in reports.steps(store, run.fanout) if paths.is_arm(step)]
    arms = [{field: report.get(field) for field in ARM_FIELDS} | _among(report, ("compacted", "deployed", *MEASURED)) for report in found]
    ends = {DENSE: 0, TICKET: 1}
    return sorted(arms, key=lambda arm: (arm["target"], ends.get(arm["method"], 2), arm["method"], -(arm["density"] or 1.0), arm["seed"]))
