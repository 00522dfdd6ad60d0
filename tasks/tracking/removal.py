"""What MLflow has of a run, and its removal: MLflow runs with their files; registered scorers where that is asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

from autosparse.models.errors import ServiceError, without_password
from autosparse.tasks.keeping.place import Place
from autosparse.tasks.settings import Settings
from autosparse.tasks.tracking.reachable import EXPERIMENT, check_reachable
from autosparse.tasks.tracking.registry import REGISTERED_MODEL

PAGE = 1000  # MLflow's limit of an answer
RUN_TAG = "autosparse.run"


def in_mlflow(settings: Settings, name: str, *, scorers: bool) -> Place:
    """The MLflow runs tagged with the pipeline run `name`, the ones that a registered scorer is read from left out.

    With `scorers` its versions too, unless an alias points to them. Raises ServiceError where the server does not answer.
    """
    client, place = _client(settings), f"MLflow at {without_password(settings.mlflow_uri)}"
    experiment = client.get_experiment_by_name(EXPERIMENT) if client else None
    if client is None or experiment is None:
        return Place(place=place)
    runs = _runs(client, experiment.experiment_id, name)
    aliased = _aliased(client)
    mine = [one for one in _versions(client) if one.tags.get(RUN_TAG) == name or one.run_id in {run.info.run_id for run in runs}]
    going = [one for one in mine if scorers and str(one.version) not in aliased]
    kept = [one for one in mine if one not in going]
    needed = {one.run_id for one in kept}  # its card and weights are read from there
    runs = [run for run in runs if run.info.run_id not in needed]
    files = [get_artifact_repository(run.info.artifact_uri or "") for run in runs]
    models = [client.get_logged_model(one.model_id) for one in going if one.model_id]
    files += [get_artifact_repository(model.artifact_location) for model in models]

    def remove() -> None:
        for version in going:
            client.delete_model_version(REGISTERED_MODEL, str(version.version))
        for repository in files:
            repository.delete_artifacts()
        for model in models:
            client.delete_logged_model(model.model_id)
        for run in runs:
            client.delete_run(run.info.run_id)

    parts = [f"{len(runs)} MLflow runs"] if runs else []
    parts += [f"{len(going)} versions of {REGISTERED_MODEL}"] if going else []
    stays = tuple(_kept(one, aliased) for one in kept)
    return Place(place=place, what=", ".join(parts), size=sum(map(_size, files)), stays=stays, remove=remove)


def runs_of_champions(settings: Settings) -> set[str]:
    """Names of the pipeline runs whose scorer has an alias in the registry. Raises ServiceError where the server does not answer."""
    client = _client(settings)
    aliased = _aliased(client) if client else {}
    return {one.tags[RUN_TAG] for one in (_versions(client) if client else []) if str(one.version) in aliased and RUN_TAG in one.tags}


def _client(settings: Settings) -> MlflowClient | None:
    """None where there is no MLflow yet: to ask would make its database."""
    uri = settings.mlflow_uri
    database = uri.removeprefix("sqlite:///")
    if database != uri and not Path(database).exists():
        return None
    check_reachable(uri)
    mlflow.set_tracking_uri(uri)  # repositories of artifacts behind the server ask for it
    client = MlflowClient(uri)
    try:
        client.search_experiments(max_results=1)
    except MlflowException as error:
        raise ServiceError(f"mlflow: {without_password(uri)} did not answer ({str(error).partition(chr(10))[0]})") from error
    return client


def _runs(client: MlflowClient, experiment: str, name: str) -> list[Run]:
    return _all(lambda token: client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{name}'", max_results=PAGE, page_token=token))


def _versions(client: MlflowClient) -> list[ModelVersion]:
    return _all(lambda token: client.search_model_versions(f"name = '{REGISTERED_MODEL}'", max_results=PAGE, page_token=token))


def _all(page: Callable[[Any], Any]) -> list[Any]:
    found, token = [], None
    while True:
        answer = page(token)
        found += answer
        token = answer.token
        if not token:
            return found


def _aliased(client: MlflowClient) -> dict[str, list[str]]:
    """Version -> its aliases."""
    found: dict[str, list[str]] = {}
    for model in client.search_registered_models(f"name = '{REGISTERED_MODEL}'"):
        for alias, version in model.aliases.items():
            found.setdefault(str(version), []).append(alias)
    return found


def _kept(version: ModelVersion, aliased: dict[str, list[str]]) -> str:
    names = sorted(aliased.get(str(version.version), []))
    said = f"alias {names[0]} points" if len(names) == 1 else f"aliases {', '.join(names)} point"
    why = f"{said} to it" if names else "--scorers removes it"
    return f"version {version.version} of {REGISTERED_MODEL}, and the MLflow run with its files ({why})"


def _size(repository: Any, folder: str | None = None) -> int:
    found = repository.list_artifacts(folder)
    return sum(_size(repository, one.path) if one.is_dir else one.file_size or 0 for one in found)
