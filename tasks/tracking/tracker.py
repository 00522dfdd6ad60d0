"""The door to MLflow, with records.py, registry.py, reachable.py and served_scorer.py: only these import it.

Explicit run ids and a client, never the thread-local active run.

Every MLflow run carries the identity tags `autosparse.run`, `autosparse.step_digest`, `prefect.flow_run_id` and `ray.job_id`.
Ray workers never talk to MLflow: what they measure reaches this file as events. What a run tells MLflow goes through a spool
(tasks/tracking/spool.py), so that a server that is away holds nobody up; tasks name an MLflow run by the digest of its step, because its
id is not known before the server has made it.
"""

import hashlib
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from autosparse.models.errors import DataError, ServiceError, TrackingError, without_password
from autosparse.tasks.report.notes import TRAINING
from autosparse.tasks.settings import Settings
from autosparse.tasks.tracking.reachable import EXPERIMENT, check_experiment, check_reachable
from autosparse.tasks.tracking.records import Receiver, is_final
from autosparse.tasks.tracking.registry import FEATURES, LONGEST_DIGEST, REGISTERED_MODEL, Facts, Registry
from autosparse.tasks.tracking.spool import RefusedError, Spool

KIND, OF_TRAINING = "mlflow.experimentKind", "custom_model_development"  # which of its pages an experiment opens on
ID_SECONDS = 5
# of the feature data set (storage/feature_shards.py), as MLflow calls them
COLUMN_TYPES = {
    "layer": "integer",
    "position": "long",
    "weight": "float",
    "gradient": "float",
    "rounds_survived": "integer",
    "growth": "integer",
}
LAST_SECONDS = 5  # for a run that failed or was called off


class Tracker:
    """MLflow for one pipeline run; `tags` are put on every MLflow run it makes.

    What it is told is kept in <home>/spool until MLflow has it, also beyond the end of the process.
    """

    def __init__(self, settings: Settings, tags: dict[str, str]) -> None:
        check_experiment(settings.mlflow_uri)
        mlflow.set_tracking_uri(settings.mlflow_uri)
        self.uri = without_password(settings.mlflow_uri)  # for people
        self.tags = tags
        self.client = MlflowClient(settings.mlflow_uri)
        self.experiment_id = self._experiment(settings)
        self.patience = settings.mlflow_seconds
        self._open: set[str] = set()
        self._receiver = Receiver(self.client, self.experiment_id)
        self.spool = Spool(spool_folder(settings, tags["autosparse.run"]), self._receiver.take)

    def open(self, step: str, title: str, *, parent: str | None = None, tags: dict[str, str] | None = None) -> str:
        """Begin the run of a step, and return its digest: an unfinished one of an earlier try is taken up, else a new one is made."""
        run = self.digest_of(step)
        wanted = {**self.tags, **(tags or {}), "autosparse.step_digest": run}
        self._open.add(run)
        self.spool.put({"do": "open", "run": run, "title": title, "parent": parent, "tags": wanted})
        return run

    def digest_of(self, step: str) -> str:
        """By what the run of a step is named here."""
        return digest(f"{self.tags['autosparse.run']}/{step}")

    def adopt(self, step: str, run_id: str) -> str | None:
        """Use a run without opening it, by its digest; None where this MLflow has no such run."""
        try:
            self.client.get_run(run_id)
        except MlflowException as error:
            if is_final(error):
                return None
            raise ServiceError(f"mlflow: {self.uri} did not answer ({error})") from error
        self._receiver.ids[self.digest_of(step)] = run_id
        return self.digest_of(step)

    def run_id(self, run: str) -> str | None:
        """MLflow's own id of a run; None while the server is away."""
        deadline = time.monotonic() + ID_SECONDS
        while run not in self._receiver.ids and not self.spool.trouble and time.monotonic() < deadline:
            self.spool.drain(0.1)
        return self._receiver.ids.get(run)

    def parameters(self, run: str, values: dict[str, Any]) -> None:
        """Log parameters that the run does not have yet (they cannot change)."""
        if values:
            self.spool.put({"do": "parameters", "run": run, "values": {key: str(value) for key, value in flatten(values).items()}})

    def metrics(self, run: str, values: dict[str, float], step: int = 0) -> None:
        """Log metrics at a step; a step that is there already (a restarted job) is left as it is."""
        numbers = {key: float(value) for key, value in values.items()}
        self.spool.put({"do": "metrics", "run": run, "values": numbers, "step": step, "time": int(time.time() * 1000)})

    def file(self, run: str, name: str, content: bytes) -> None:
        """Store an artifact called `name` (folders allowed)."""
        self.spool.put({"do": "file", "run": run, "name": name}, content)

    def features(self, run: str, dataset: dict[str, Any], context: str) -> None:
        """Say that the run used a feature data set, by the report of its step; its columns are known, and how many rows there are."""
        named = {"uri": dataset["uri"], "name": FEATURES, "digest": dataset["digest"][:LONGEST_DIGEST], "context": context}
        schema = [{"name": name, "type": kind, "required": True} for name, kind in COLUMN_TYPES.items()]
        profile = {"num_rows": dataset["rows"], "num_elements": dataset["rows"] * len(schema)}
        profile |= {name: dataset[name] for name in ("sources", "rounds", "final_density") if name in dataset}
        self.spool.put({"do": "lineage", "run": run, **named, "schema": schema, "profile": profile})

    def describe(self, run: str, text: str) -> None:
        """What a person reads on the run's page, in Markdown; `{run}` and `{experiment}` in it become MLflow's ids."""
        if text:
            self.spool.put({"do": "describe", "run": run, "text": text})

    def close(self, run: str, status: str = "FINISHED") -> None:
        """End a run as FINISHED, FAILED or KILLED."""
        self._open.discard(run)
        self.spool.put({"do": "close", "run": run, "status": status})

    def sweep(self, status: str) -> None:
        """End the runs that a killed process of this pipeline run left RUNNING."""
        self.spool.put({"do": "sweep", "name": self.tags["autosparse.run"], "status": status})

    def finished(self, step: str) -> bool:
        """Whether MLflow has a finished run of the step."""
        return self._receiver.finished(self.digest_of(step))

    @contextmanager
    def closing(self, *, whole: bool = False) -> Iterator[None]:
        """End what is open with the block: FINISHED, FAILED after an error, KILLED after anything else, and have MLflow take it.

        `whole`: no other process works on the run, so that what an earlier one left RUNNING ends as well. Raises TrackingError
        where all went well but MLflow did not take everything in time.
        """
        status, seconds = "KILLED", float(LAST_SECONDS)
        try:
            yield
            status, seconds = "FINISHED", self.patience
        except Exception:
            status = "FAILED"
            raise
        finally:
            for run in tuple(self._open):
                self.close(run, status)
            if whole:
                self.sweep(status)
            self.spool.called_off.clear()
            try:
                if not self.spool.drain(seconds) and status == "FINISHED":
                    raise self.away("the end of the run")
            finally:
                self.spool.close()

    def call_off(self) -> None:
        """Have nobody wait for MLflow any more: the run was cancelled."""
        self.spool.called_off.set()

    def away(self, step: str) -> TrackingError:
        """The error of a step that cannot go on without MLflow."""
        why = f"{self.spool.waiting} records wait; {self.spool.trouble or 'it is slow'}"
        hint = f"the results are in storage, and `autosparse sync {self.tags['autosparse.run']}` brings them to MLflow"
        return TrackingError(f"{step}: mlflow at {self.uri} did not take everything within {self.patience:.0f} s ({why}); {hint}")

    def register(self, run: str, files: dict[str, bytes], facts: Facts) -> tuple[str, bool]:
        """Register the scorer of a run's fit once; return its version and whether it is the champion now.

        `files` are its card and safetensors, by name: they are what `load_scorer_files` reads back. Tried again while MLflow is
        away; raises TrackingError when it stays away.
        """
        deadline = time.monotonic() + self.patience
        while self.spool.drain(deadline - time.monotonic()) and time.monotonic() < deadline and not self.spool.called_off.is_set():
            try:
                run_id, told = self._receiver.id_of(run), replace(facts, tags={**self.tags, **facts.tags})
                return Registry(self.client).register(self.experiment_id, run_id, files, told)
            except RefusedError as error:
                raise TrackingError(f"register scorer: mlflow: {error}") from error
            except (MlflowException, OSError) as error:
                if is_final(error):
                    raise
                self.spool.trouble = str(error).partition("\n")[0]
                time.sleep(1)
        raise self.away("register scorer")

    def address(self, run: str) -> str:
        """Where a person looks at the run: a page of the server, or the database to open with `autosparse up`."""
        run_id = self.run_id(run)
        if self.uri.startswith("http"):
            return f"{self.uri.rstrip('/')}/#/experiments/{self.experiment_id}/runs/{run_id}{TRAINING}"
        return f"{self.uri} run {run_id}"

    def picture_url(self, run: str, name: str) -> str | None:
        """The address of an image artifact, where a server can show it."""
        if not self.uri.startswith("http") or not (run_id := self.run_id(run)):
            return None
        return f"{self.uri.rstrip('/')}/get-artifact?path={name}&run_uuid={run_id}"

    def _experiment(self, settings: Settings) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found:
            if KIND not in found.tags:  # else a person, or we, have chosen
                self.client.set_experiment_tag(found.experiment_id, KIND, OF_TRAINING)
            return found.experiment_id
        location = None if settings.mlflow_uri.startswith("http") else settings.mlflow_artifacts.as_uri()
        try:
            return self.client.create_experiment(EXPERIMENT, artifact_location=location, tags={KIND: OF_TRAINING})
        except MlflowException:  # another run made it in the meantime
            found = self.client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                raise
            return found.experiment_id


def registry_of(settings: Settings) -> Registry:
    """The registered scorers. Raises ServiceError where MLflow is away."""
    check_reachable(settings.mlflow_uri)
    return Registry(MlflowClient(settings.mlflow_uri))


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


def spool_folder(settings: Settings, name: str) -> Path:
    """What MLflow is still to be told of a run."""
    return settings.home / "spool" / f"{name}-{digest(settings.storage)}"


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
