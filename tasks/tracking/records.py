"""What a record of the tracker's spool does at MLflow. Every record may come twice and does its work once.

Only tasks/tracking/tracker.py uses this file.
"""

import hashlib
import json
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from autosparse.tasks.tracking.registry import NOTE
from autosparse.tasks.tracking.spool import Record, RefusedError

RUN, EXPERIMENT = "{run}", "{experiment}"  # in descriptions, which are written before MLflow's ids are known
OURS = "autosparse.note"  # the digest of a description that we wrote
BATCH = 100  # MLflow's limit of params per call
# answers that another try would not change; any other error may be a server that is away or starts
FINAL = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST", "INVALID_STATE")


def is_final(error: BaseException) -> bool:
    """Whether MLflow has answered, and would answer the same again."""
    return isinstance(error, MlflowException) and error.error_code in FINAL


@dataclass
class Seen:
    """What a run of MLflow has, as far as only this process changes it: names of parameters, the last epoch, its start (ms)."""

    params: set[str] = field(default_factory=set)
    epoch: float = -1.0
    start: int = 0


class Receiver:
    """One experiment of an MLflow. Records name a run by the digest of its step; `ids` has MLflow's ids of those that were seen."""

    def __init__(self, client: MlflowClient, experiment_id: str) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self.ids: dict[str, str] = {}
        self._seen: dict[str, Seen] = {}  # by MLflow's id

    def take(self, record: Record, content: bytes | None) -> None:
        """Do what the record says. Raises RefusedError where MLflow never will, anything else where it may later."""
        named = {name: value for name, value in record.items() if name != "do"} | ({} if content is None else {"content": content})
        try:
            getattr(self, record["do"])(**named)
        except Exception as error:
            self._seen.clear()  # part of it may have arrived
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
            self._seen[made.info.run_id] = Seen(start=made.info.start_time or 0)

    def parameters(self, run: str, values: dict[str, str]) -> None:
        """Those that the run does not have yet."""
        run_id = self.id_of(run)
        seen = self._look(run_id)
        items = [Param(key, value) for key, value in values.items() if key not in seen.params]
        for start in range(0, len(items), BATCH):
            self.client.log_batch(run_id, params=items[start : start + BATCH])
        seen.params |= values.keys()

    def metrics(self, run: str, values: dict[str, float], step: int, time: int) -> None:
        """A step that is there already is left as it is; without a step, the same values at the same `time` (ms) are one point."""
        run_id = self.id_of(run)
        if step and step <= self._look(run_id).epoch:
            return
        extra = {"epoch": float(step)} if step else {}
        self.client.log_batch(run_id, metrics=[Metric(key, value, time, step) for key, value in {**values, **extra}.items()])
        if step:
            self._look(run_id).epoch = float(step)

    def file(self, run: str, name: str, content: bytes) -> None:
        """An artifact."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            path.write_bytes(content)
            parent = str(Path(name).parent)
            self.client.log_artifact(self.id_of(run), str(path), None if parent == "." else parent)

    def lineage(
        self,
        run: str,
        uri: str,
        name: str,
        digest: str,
        context: str,
        schema: list[dict[str, Any]] | None = None,  # records of earlier versions have neither
        profile: dict[str, Any] | None = None,
    ) -> None:
        """That the run used a data set."""
        with warnings.catch_warnings():  # a local path has two equal readings
            warnings.simplefilter("ignore", UserWarning)
            source = resolve_dataset_source(uri)
        entity = MetaDataset(source, name=name, digest=digest)._to_mlflow_entity()
        shown = {"schema": json.dumps({"mlflow_colspec": schema}) if schema else None, "profile": json.dumps(profile) if profile else None}
        known = Dataset(entity.name, entity.digest, entity.source_type, entity.source, **shown)
        self.client.log_inputs(self.id_of(run), [DatasetInput(known, [InputTag("mlflow.data.context", context)])])

    def describe(self, run: str, text: str) -> None:
        """The description of a run, RUN and EXPERIMENT in it replaced by MLflow's ids; what a person wrote there stays."""
        run_id = self.id_of(run)
        note, tags = text.replace(RUN, run_id).replace(EXPERIMENT, self.experiment_id), self.client.get_run(run_id).data.tags
        if tags.get(NOTE) and tags.get(OURS) != _digest(tags[NOTE]):
            return
        self.client.log_batch(run_id, tags=[RunTag(NOTE, note), RunTag(OURS, _digest(note))])

    def close(self, run: str, status: str) -> None:
        """The end of a run."""
        run_id = self.id_of(run)
        self.client.set_terminated(run_id, status, end_time=max(int(time.time() * 1000), self._look(run_id).start))  # a clock may step back
        self._seen.pop(run_id)

    def sweep(self, name: str, status: str) -> None:
        """The end of every run of the pipeline run `name` that is still RUNNING: a process that was killed left it."""
        left = f"tags.`autosparse.run` = '{name}' and attributes.status = 'RUNNING'"
        for one in self.client.search_runs([self.experiment_id], left, max_results=1000):
            self.client.set_terminated(one.info.run_id, status)

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

    def _look(self, run_id: str) -> Seen:
        if run_id not in self._seen:
            found = self.client.get_run(run_id)
            self._seen[run_id] = Seen(set(found.data.params), found.data.metrics.get("epoch", -1.0), found.info.start_time or 0)
        return self._seen[run_id]

    def _runs(self, run: str) -> list[Any]:
        same = f"tags.`autosparse.step_digest` = '{run}'"
        return list(self.client.search_runs([self.experiment_id], same, max_results=100, order_by=["attributes.start_time ASC"]))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
