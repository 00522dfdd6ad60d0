"""What a record of the tracker's spool does at MLflow. Every record may come twice and does its work once.

Only tasks/tracking/tracker.py uses this file.
"""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from mlflow import pytorch as mlflow_pytorch
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, infer_signature
from mlflow.tracking import MlflowClient
from torch import Tensor, nn

from autosparse.storage import paths
from autosparse.storage.store import Store
from autosparse.tasks.tracking.champion import beats
from autosparse.tasks.tracking.spool import Record, RefusedError

REGISTERED_MODEL = "autosparse-scorer"
CHAMPION = "champion"
BATCH = 100  # MLflow's limit of params per call
# answers that another try would not change; any other error may be a server that is away or starts
FINAL = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST", "INVALID_STATE")


def is_final(error: BaseException) -> bool:
    """Whether MLflow has answered, and would answer the same again."""
    return isinstance(error, MlflowException) and error.error_code in FINAL


class Receiver:
    """One experiment of an MLflow. Records name a run by the digest of its step; `ids` has MLflow's ids of those that were seen."""

    def __init__(self, client: MlflowClient, experiment_id: str) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self.ids: dict[str, str] = {}
        self._epochs: dict[str, float] = {}

    def take(self, record: Record, content: bytes | None) -> None:
        """Do what the record says. Raises RefusedError where MLflow never will, anything else where it may later."""
        named = {name: value for name, value in record.items() if name != "do"} | ({} if content is None else {"content": content})
        try:
            getattr(self, record["do"])(**named)
        except MlflowException as error:
            if is_final(error):
                raise RefusedError(str(error)) from error
            raise

    def open(self, run: str, title: str, parent: str | None, tags: dict[str, str]) -> None:
        """Take up the oldest run of the step that is not finished (of the whole run: the oldest), or make one."""
        found = [one for one in self._runs(run) if parent is None or one.info.status != "FINISHED"]
        if found:
            self.ids[run] = found[0].info.run_id
            self.client.update_run(self.ids[run], status="RUNNING")
            self.client.log_batch(self.ids[run], tags=[RunTag(key, value) for key, value in tags.items()])
        else:
            lineage = {"mlflow.parentRunId": self.id_of(parent)} if parent else {}
            made = self.client.create_run(self.experiment_id, run_name=title, tags={**tags, **lineage})
            self.ids[run] = made.info.run_id

    def parameters(self, run: str, values: dict[str, str]) -> None:
        """Those that the run does not have yet."""
        known = self.client.get_run(self.id_of(run)).data.params
        items = [Param(key, value) for key, value in values.items() if key not in known]
        for start in range(0, len(items), BATCH):
            self.client.log_batch(self.id_of(run), params=items[start : start + BATCH])

    def metrics(self, run: str, values: dict[str, float], step: int, time: int) -> None:
        """A step that is there already is left as it is; without a step, the same values at the same `time` (ms) are one point."""
        run_id = self.id_of(run)
        if step and run_id not in self._epochs:
            self._epochs[run_id] = self.client.get_run(run_id).data.metrics.get("epoch", -1.0)
        if step and step <= self._epochs[run_id]:
            return
        extra = {"epoch": float(step)} if step else {}
        self.client.log_batch(run_id, metrics=[Metric(key, value, time, step) for key, value in {**values, **extra}.items()])
        if step:
            self._epochs[run_id] = float(step)

    def file(self, run: str, name: str, content: bytes) -> None:
        """An artifact."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            path.write_bytes(content)
            parent = str(Path(name).parent)
            self.client.log_artifact(self.id_of(run), str(path), None if parent == "." else parent)

    def lineage(self, run: str, uri: str, name: str, digest: str, context: str) -> None:
        """That the run used a data set."""
        with warnings.catch_warnings():  # a local path has two equal readings
            warnings.simplefilter("ignore", UserWarning)
            source = resolve_dataset_source(uri)
        entity = MetaDataset(source, name=name, digest=digest)._to_mlflow_entity()
        self.client.log_inputs(self.id_of(run), [DatasetInput(entity, [InputTag("mlflow.data.context", context)])])

    def close(self, run: str, status: str) -> None:
        """The end of a run."""
        self.client.set_terminated(self.id_of(run), status)

    def sweep(self, name: str, status: str) -> None:
        """The end of every run of the pipeline run `name` that is still RUNNING: a process that was killed left it."""
        left = f"tags.`autosparse.run` = '{name}' and attributes.status = 'RUNNING'"
        for one in self.client.search_runs([self.experiment_id], left, max_results=1000):
            self.client.set_terminated(one.info.run_id, status)

    def register(self, run: str, scorer: nn.Module, *, example: Tensor, store: Store, files: str, tags: dict[str, str]) -> tuple[str, bool]:
        """One version per run, of the scorer with these `tags`; its number and whether it is the champion now."""
        run_id = self.id_of(run)
        known = self.client.search_model_versions(f"name = '{REGISTERED_MODEL}'") if self._registered() else []
        found = [version for version in known if version.run_id == run_id]
        version = str(found[0].version) if found else self._log_model(run_id, scorer, example)
        if not found or any(found[0].tags.get(key) != text for key, text in tags.items()):
            for name in (paths.scorer_weights(files), paths.scorer_card(files)):
                self.file(run, f"scorer-files/{name.rsplit('/', 1)[-1]}", store.read(name))
            for key, text in tags.items():
                self.client.set_model_version_tag(REGISTERED_MODEL, version, key, text)
        champion = self._champion()
        if champion is None or beats(tags, champion.tags):
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
        except MlflowException as error:
            if is_final(error):
                return None
            raise

    def finished(self, run: str) -> bool:
        """Whether a run of that step is there to its end."""
        return any(one.info.status == "FINISHED" for one in self._runs(run))

    def id_of(self, run: str) -> str:
        """MLflow's id of a run that was opened, by this process or an earlier one. Raises RefusedError where there is none."""
        if run not in self.ids:
            found: list[Run] = self._runs(run)
            if not found:
                raise RefusedError(f"there is no run of step {run}; was the database replaced?")
            self.ids[run] = next((one for one in found if one.info.status != "FINISHED"), found[-1]).info.run_id
        return self.ids[run]

    def _runs(self, run: str) -> list[Any]:
        same = f"tags.`autosparse.step_digest` = '{run}'"
        return list(self.client.search_runs([self.experiment_id], same, max_results=100, order_by=["attributes.start_time ASC"]))
