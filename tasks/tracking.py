"""The door to MLflow: the only file that imports it. Explicit run ids and a client, never the thread-local active run.

Every MLflow run carries the identity tags `autosparse.run`, `autosparse.step_digest`, `prefect.flow_run_id` and `ray.job_id`.
Ray workers never talk to MLflow: what they measure reaches this file as events.
"""

import hashlib
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import mlflow
import torch
from mlflow import pytorch as mlflow_pytorch
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, infer_signature
from mlflow.tracking import MlflowClient
from torch import Tensor, nn

from models.errors import DataError, ServiceError, without_password
from storage import paths
from storage.store import Store
from tasks.settings import Settings

EXPERIMENT = "autosparse"
REGISTERED_MODEL = "autosparse-scorer"
CHAMPION = "champion"
HEALTH_SECONDS = 15
BATCH = 100  # MLflow's limit of params per call


class Tracker:
    """MLflow for one pipeline run; `tags` are put on every MLflow run it makes."""

    def __init__(self, settings: Settings, tags: dict[str, str]) -> None:
        check_reachable(settings.mlflow_uri)
        mlflow.set_tracking_uri(settings.mlflow_uri)
        self.uri = settings.mlflow_uri
        self.tags = tags
        self.client = MlflowClient(settings.mlflow_uri)
        self.experiment_id = self._experiment(settings)
        self._open: set[str] = set()

    def open(self, step: str, title: str, *, parent: str | None = None, tags: dict[str, str] | None = None) -> str:
        """The id of the run of a step: an unfinished one of an earlier try is taken up, else a new one is made."""
        wanted = {**self.tags, **(tags or {}), "autosparse.step_digest": digest(f"{self.tags['autosparse.run']}/{step}")}
        same = f"tags.`autosparse.step_digest` = '{wanted['autosparse.step_digest']}'"
        for found in self.client.search_runs([self.experiment_id], same, max_results=5, order_by=["attributes.start_time ASC"]):
            if parent is None or found.info.status != "FINISHED":
                self.client.update_run(found.info.run_id, status="RUNNING")
                self.client.log_batch(found.info.run_id, tags=[RunTag(key, value) for key, value in wanted.items()])
                self._open.add(found.info.run_id)
                return found.info.run_id
        lineage = {"mlflow.parentRunId": parent} if parent else {}
        run_id = self.client.create_run(self.experiment_id, run_name=title, tags={**wanted, **lineage}).info.run_id
        self._open.add(run_id)
        return run_id

    def knows(self, run_id: str) -> bool:
        """Whether this MLflow has the run: one of another server or database it has not."""
        try:
            return bool(self.client.get_run(run_id))
        except MlflowException:
            return False

    def parameters(self, run_id: str, values: dict[str, Any]) -> None:
        """Log parameters that the run does not have yet (they cannot change)."""
        known = self.client.get_run(run_id).data.params
        items = [Param(key, str(value)) for key, value in flatten(values).items() if key not in known]
        for start in range(0, len(items), BATCH):
            self.client.log_batch(run_id, params=items[start : start + BATCH])

    def metrics(self, run_id: str, values: dict[str, float], step: int = 0) -> None:
        """Log metrics at a step; a step that is there already (a restarted job) is left as it is."""
        last = self.client.get_run(run_id).data.metrics.get("epoch", -1.0)
        if step and step <= last:
            return
        now = int(time.time() * 1000)
        extra = {"epoch": float(step)} if step else {}
        self.client.log_batch(run_id, metrics=[Metric(key, float(value), now, step) for key, value in {**values, **extra}.items()])

    def file(self, run_id: str, name: str, content: bytes) -> None:
        """Store an artifact called `name` (folders allowed)."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            path.write_bytes(content)
            parent = str(Path(name).parent)
            self.client.log_artifact(run_id, str(path), None if parent == "." else parent)

    def lineage(self, run_id: str, *, uri: str, name: str, dataset_digest: str, context: str) -> None:
        """Say that the run used a data set."""
        with warnings.catch_warnings():  # a local path has two equal readings
            warnings.simplefilter("ignore", UserWarning)
            source = resolve_dataset_source(uri)
        entity = MetaDataset(source, name=name, digest=dataset_digest[:36])._to_mlflow_entity()
        self.client.log_inputs(run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", context)])])

    def register(
        self, run_id: str, scorer: nn.Module, *, example: Tensor, store: Store, files: str, tags: dict[str, str], value: float
    ) -> tuple[str, bool]:
        """Register a scorer once per run and step; return its version and whether it is the champion now.

        `example` has at least two rows, because a batch of one would be exported as the only size. The safetensors file and
        the card under `files` are artifacts of the same run: they are what `load_scorer_files` reads back.
        """
        mine = {**self.tags, **tags}
        known = self.client.search_model_versions(f"name = '{REGISTERED_MODEL}'") if self._registered() else []
        found = [version for version in known if version.tags.get("dataset_digest") == tags["dataset_digest"] and version.run_id == run_id]
        if found:
            version = str(found[0].version)
        else:
            version = self._log_model(run_id, scorer, example)
            for name in (paths.scorer_weights(files), paths.scorer_card(files)):
                self.file(run_id, f"scorer-files/{name.rsplit('/', 1)[-1]}", store.read(name))
            for key, text in mine.items():
                self.client.set_model_version_tag(REGISTERED_MODEL, version, key, text)
        champion = self._champion()
        if champion is None or value > float(champion.tags.get("held_out", "-inf")):
            self.client.set_registered_model_alias(REGISTERED_MODEL, CHAMPION, version)
        return version, getattr(self._champion(), "version", None) in (version, int(version))

    def _log_model(self, run_id: str, scorer: nn.Module, example: Tensor) -> str:
        scorer = scorer.cpu().eval()
        with torch.inference_mode():
            signature = infer_signature(example.numpy(), scorer(example).numpy())
        info = Model.log(
            artifact_path=None,
            name="scorer",
            flavor=mlflow_pytorch,
            run_id=run_id,
            pytorch_model=scorer,
            input_example=example.numpy(),
            signature=signature,
            pip_requirements=[f"torch=={torch.__version__.split('+')[0]}"],
            registered_model_name=REGISTERED_MODEL,
        )
        return str(info.registered_model_version)

    def _registered(self) -> bool:
        return bool(self.client.search_registered_models(f"name = '{REGISTERED_MODEL}'"))

    def _champion(self) -> ModelVersion | None:
        try:
            return self.client.get_model_version_by_alias(REGISTERED_MODEL, CHAMPION)
        except MlflowException:
            return None

    def close(self, run_id: str, status: str = "FINISHED") -> None:
        """End a run as FINISHED, FAILED or KILLED."""
        self.client.set_terminated(run_id, status)
        self._open.discard(run_id)

    def close_all(self, status: str) -> None:
        """End whatever is still open, so that no run stays RUNNING after its process."""
        for run_id in tuple(self._open):
            self.close(run_id, status)

    def address(self, run_id: str) -> str:
        """Where a person looks at the run: a page of the server, or the database to open with `autosparse up`."""
        if self.uri.startswith("http"):
            return f"{self.uri.rstrip('/')}/#/experiments/{self.experiment_id}/runs/{run_id}"
        return f"{without_password(self.uri)} run {run_id}"

    def picture_url(self, run_id: str, name: str) -> str | None:
        """The address of an image artifact, where a server can show it."""
        return f"{self.uri.rstrip('/')}/get-artifact?path={name}&run_uuid={run_id}" if self.uri.startswith("http") else None

    def _experiment(self, settings: Settings) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found:
            return found.experiment_id
        location = None if settings.mlflow_uri.startswith("http") else settings.mlflow_artifacts.as_uri()
        try:
            return self.client.create_experiment(EXPERIMENT, artifact_location=location)
        except MlflowException:  # another run made it in the meantime
            found = self.client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                raise
            return found.experiment_id


def load_scorer_files(settings: Settings, uri: str) -> tuple[bytes, bytes]:
    """Card and safetensors of a registered scorer, `models:/NAME@ALIAS` or `models:/NAME/VERSION`. Raises DataError."""
    check_reachable(settings.mlflow_uri)
    client = MlflowClient(settings.mlflow_uri)
    name, at, alias = uri.removeprefix("models:/").partition("@")
    try:
        version = client.get_model_version_by_alias(name, alias) if at else client.get_model_version(*name.rsplit("/", 1))
        if version.run_id is None:
            raise DataError(f"scorer: {uri} was not made by autosparse; allowed: versions of {REGISTERED_MODEL}")
        with tempfile.TemporaryDirectory() as folder:
            found = Path(client.download_artifacts(version.run_id, "scorer-files", folder))
            return (found / "scorer.json").read_bytes(), (found / "scorer.safetensors").read_bytes()
    except (MlflowException, TypeError, OSError) as error:
        registry, reason = without_password(settings.mlflow_uri), (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"scorer: {uri} is not in the registry at {registry} ({reason})") from error


def check_reachable(uri: str) -> None:
    """Raise ServiceError, in HEALTH_SECONDS at most, when an MLflow server does not answer; a database is not asked."""
    if not uri.startswith("http"):
        return
    start = time.monotonic()
    while True:
        try:
            with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() - start > HEALTH_SECONDS - 5:
                waited = time.monotonic() - start
                raise ServiceError(f"mlflow: {uri} did not answer for {waited:.0f} s ({getattr(error, 'reason', error)})") from error
            time.sleep(0.5)


def digest(text: str) -> str:
    """Sixteen hex digits of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested specs as dotted names: `{"irp": {"rounds": 3}}` becomes `{"irp.rounds": 3}`."""
    if isinstance(values, dict):
        items = values.items()
    elif isinstance(values, list) and values and isinstance(values[0], dict):
        items = enumerate(values)
    else:
        return {prefix: values}
    return {key: value for name, item in items for key, value in flatten(item, f"{prefix}.{name}" if prefix else str(name)).items()}
