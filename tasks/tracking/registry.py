"""The scorers in MLflow's registry: a LoggedModel and a version for each run, and the aliases of the best of them.

Only tasks/tracking/tracker.py and the command `autosparse scorers` use this file, and tests of it.
"""

import json
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from mlflow import pyfunc
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema

from autosparse.models.errors import SpecError, not_allowed
from autosparse.tasks.tracking.champion import CHAMPION, Tags, beats, contested, group_alias

REGISTERED_MODEL = "autosparse-scorer"
NOTE = "mlflow.note.content"  # the description on a page of MLflow, in Markdown
VERSIONS = "mlflow.modelVersions"  # by which the page of a model knows that it is registered
FEATURES = "features"  # the data set that scorers learn from
LONGEST_DIGEST = 36  # that MLflow takes
MODEL, MODEL_TYPE = "scorer", "pruning-scorer"
SERVED = Path(__file__).with_name("served_scorer.py")
CARD, WEIGHTS = "scorer.json", "scorer.safetensors"
ABOUT = """Scorers of autosparse: networks that say which weights of another network to keep, before it is trained. One version per run.

`champion` is the best of all, `champion-DATA-LABEL` the best of its data and label; `autosparse scorers` lists them.

    autosparse prune NETWORK --scorer models:/autosparse-scorer@champion --density 0.05 --data DATA --out FOLDER"""

# what `autosparse.library.weight_table` takes and gives
COLUMNS = {"layer": "string", "shape": "string", "weight": "float", "gradient": "float"}
GIVEN = {"score": "double", "keep": "long"}
PARAMS = {"density": ("double", 0.1), "network": ("string", ""), "seed": ("long", 0), "min_per_layer": ("long", 0)}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is said of a scorer: tags of its version, parameters and metrics of its model, the name and digest of its data set, its card."""

    tags: dict[str, str]
    parameters: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    dataset: tuple[str, str] | None = None
    card: str = ""


class Registry:
    """The versions of `autosparse-scorer` in one MLflow. Every call may come twice and does its work once."""

    def __init__(self, client: MlflowClient) -> None:
        self.client = client

    def register(self, experiment: str, run_id: str, files: dict[str, bytes], facts: Facts) -> tuple[str, bool]:
        """One version per MLflow run of a fit, of the scorer in these two files; its number and whether it is the champion now."""
        if self._registered() is None:
            self.client.create_registered_model(REGISTERED_MODEL, description=ABOUT)
        found = [version for version in self.versions() if version.run_id == run_id]
        version = str(found[0].version) if found else self._publish(experiment, run_id, files, facts)
        if not found or any(found[0].tags.get(key) != text for key, text in facts.tags.items()):
            with tempfile.TemporaryDirectory() as folder:
                for name, content in files.items():
                    (Path(folder) / name).write_bytes(content)
                self.client.log_artifacts(run_id, folder, "scorer-files")
            for key, text in facts.tags.items():
                self.client.set_model_version_tag(REGISTERED_MODEL, version, key, text)
        for alias in (CHAMPION, group_alias(facts.tags)):
            if alias:
                self._crown(alias, version)
        return version, self.aliases().get(CHAMPION) == version

    def versions(self) -> list[ModelVersion]:
        """All of them, the newest first."""
        found = self.client.search_model_versions(f"name = '{REGISTERED_MODEL}'")
        return sorted(found, key=lambda version: -int(version.version))

    def aliases(self) -> dict[str, str]:
        """Alias -> version."""
        there = self._registered()
        return {alias: str(version) for alias, version in there.aliases.items()} if there else {}

    def listing(self) -> list[dict[str, Any]]:
        """Of each version what a person chooses by, the newest first; None where an earlier release did not say."""
        aliases = self.aliases()
        return [
            _listed(version, sorted(alias for alias, holder in aliases.items() if holder == str(version.version)))
            for version in self.versions()
        ]

    def promote(self, version: str, alias: str, *, force: bool = False) -> str | None:
        """Give a version the alias, and return which one had it. Raises SpecError, with both figures, where that one is not worse."""
        known = {str(one.version): one for one in self.versions()}
        if version not in known:
            raise not_allowed("--promote", version, f"a version of {REGISTERED_MODEL}: {', '.join(known) or 'there is none'}")
        tags, holder = known[version].tags, self.aliases().get(alias)
        if not contested(alias, tags):
            raise not_allowed("--alias", alias, " or ".join(filter(None, (CHAMPION, group_alias(tags)))) + f" for version {version}")
        if holder in known and holder != version and not force and not beats(tags, known[holder].tags):
            mine, theirs = (f"version {one} (held-out {_figure(known[one].tags)})" for one in (version, holder))
            raise SpecError(f"--promote: {mine} does not beat {theirs}, which is {alias}; allowed: a better one, or --force")
        self.client.set_registered_model_alias(REGISTERED_MODEL, alias, version)
        return holder

    def _crown(self, alias: str, version: str) -> None:
        """Let the new version have the alias where it beats the holder; without a holder the best of all that may have it."""
        rivals = {str(one.version): one.tags for one in reversed(self.versions()) if contested(alias, one.tags)}
        holder = self.aliases().get(alias)
        if holder is None:
            best = next(iter(rivals), version)
            for rival, tags in rivals.items():
                best = rival if beats(tags, rivals[best]) else best
        else:
            # of a holder that is no scorer of ours nothing is known
            best = version if version in rivals and beats(rivals[version], rivals.get(holder, {})) else holder
        if best != holder:
            self.client.set_registered_model_alias(REGISTERED_MODEL, alias, best)

    def _publish(self, experiment: str, run_id: str, files: dict[str, bytes], facts: Facts) -> str:
        model = self._model(experiment, run_id, facts)
        if model.status != LoggedModelStatus.READY:
            self._log(model, run_id, files, facts)
        made = self.client.create_model_version(
            REGISTERED_MODEL, f"models:/{model.model_id}", run_id, description=facts.card or None, model_id=model.model_id
        )
        listed = json.dumps([{"name": REGISTERED_MODEL, "version": int(made.version)}])
        self.client.set_logged_model_tags(model.model_id, {VERSIONS: listed})
        return str(made.version)

    def _model(self, experiment: str, run_id: str, facts: Facts) -> LoggedModel:
        """The LoggedModel of the run: what a process left that was killed before there was a version, else a new one."""
        left = self.client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
        if left:
            return left[0]
        tags = facts.tags | ({NOTE: facts.card} if facts.card else {})
        return self.client.create_logged_model(experiment, MODEL, run_id, tags, facts.parameters, MODEL_TYPE)

    def _log(self, model: LoggedModel, run_id: str, files: dict[str, bytes], facts: Facts) -> None:
        name, digest = facts.dataset or (None, None)
        metrics = [
            Metric(key, value, self._time(run_id, key), 0, model_id=model.model_id, dataset_name=name, dataset_digest=digest, run_id=run_id)
            for key, value in facts.metrics.items()
        ]
        if metrics and not model.metrics:
            self.client.log_batch(run_id, metrics=metrics)
        told = self.client.get_run(run_id).outputs
        if not told or model.model_id not in {one.model_id for one in told.model_outputs}:  # MLflow refuses to be told twice
            self.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        with tempfile.TemporaryDirectory() as folder:
            _save(Path(folder), model, run_id, files)
            self.client.log_model_artifacts(model.model_id, f"{folder}/model")
        self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)

    def _time(self, run_id: str, key: str) -> int:
        """When the run logged the metric, so that its own page shows one point and not two."""
        known = self.client.get_metric_history(run_id, key)
        return known[0].timestamp if known else int(time.time() * 1000)

    def _registered(self) -> Any:
        found = self.client.search_registered_models(f"name = '{REGISTERED_MODEL}'")
        return found[0] if found else None


def _save(folder: Path, model: LoggedModel, run_id: str, files: dict[str, bytes]) -> None:
    """The model's files: the code of served_scorer.py, which loads the two files of the scorer; nothing is pickled."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of an example, for which the signature stands
        pyfunc.save_model(
            folder / "model",
            python_model=str(SERVED),
            artifacts={"card": str(folder / CARD), "weights": str(folder / WEIGHTS)},
            signature=ModelSignature(
                inputs=Schema([ColSpec(kind, name) for name, kind in COLUMNS.items()]),
                outputs=Schema([ColSpec(kind, name) for name, kind in GIVEN.items()]),
                params=ParamSchema([ParamSpec(name, kind, default) for name, (kind, default) in PARAMS.items()]),
            ),
            pip_requirements=[f"autosparse[pipeline]=={version_of('autosparse')}"],
            mlflow_model=Model(artifact_path=model.artifact_location, run_id=run_id, model_uuid=model.model_id, model_id=model.model_id),
        )


def _listed(version: ModelVersion, aliases: list[str]) -> dict[str, Any]:
    tags = version.tags
    known = {name: tags.get(name) for name in ("data", "label", "sources", "kind", "metric", "held_out_on")}
    return {
        "version": str(version.version),
        "aliases": aliases,
        **known,
        "rows": int(tags["rows"]) if "rows" in tags else None,
        "held_out": float(tags["held_out"]) if "held_out" in tags else None,
        "run": tags.get("autosparse.run", ""),
        "date": time.strftime("%Y-%m-%d", time.gmtime(version.creation_timestamp / 1000)),
        "address": f"models:/{REGISTERED_MODEL}" + (f"@{min(aliases, key=len)}" if aliases else f"/{version.version}"),
    }


def _figure(tags: Tags) -> str:
    return (
        f"{float(tags['held_out']):.4f} on {tags.get('data', '?')}, {int(tags.get('rows', 0)):,} rows" if "held_out" in tags else "unknown"
    )
