"""What a Prefect server has of a run: its flow runs, those below them, and their artifacts."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterName,
    FlowRunFilterParentFlowRunId,
)
from prefect.client.schemas.objects import Artifact, FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings

from autosparse.models.errors import ServiceError
from autosparse.tasks.keeping.place import Place
from autosparse.tasks.settings import Settings

FLOWS = ("autosparse", "autosparse-valley")  # those that a person starts
PAGE = 200


def in_prefect(settings: Settings, name: str) -> Place:
    """Flow runs that carry the run's name, and all below them. Nothing where no server is set. Raises ServiceError where it is silent."""
    if not settings.prefect_api_url:
        return Place(place="Prefect")
    with _asked(settings) as client:
        runs = _flow_runs(client, name)
        artifacts = _artifacts(client, [run.id for run in runs])

    def remove() -> None:
        with _asked(settings) as client:
            for one in artifacts:
                _delete(client.delete_artifact, one.id)
            for run in reversed(runs):  # those below first
                _delete(client.delete_flow_run, run.id)

    what = f"{len(runs)} flow runs, {len(artifacts)} artifacts" if runs else ""
    return Place(place=f"Prefect at {settings.prefect_api_url}", what=what, remove=remove)


@contextmanager
def _asked(settings: Settings) -> Iterator[SyncPrefectClient]:
    """A client of the server. Raises ServiceError where it does not answer."""
    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "2")  # a person waits
    try:
        with temporary_settings({PREFECT_API_URL: settings.prefect_api_url}), get_client(sync_client=True) as client:
            yield client
    except HTTPError as error:
        raise ServiceError(f"prefect: {settings.prefect_api_url} did not answer ({error or type(error).__name__})") from error


def _flow_runs(client: SyncPrefectClient, name: str) -> list[FlowRun]:
    """Parents before what is below them."""
    flows = FlowFilter(name=FlowFilterName(any_=[*FLOWS]))
    named = FlowRunFilter(name=FlowRunFilterName(any_=[name, f"valley of {name}"]))
    level = _all(lambda start: client.read_flow_runs(flow_filter=flows, flow_run_filter=named, limit=PAGE, offset=start))
    found = []
    while level:
        found += level
        below = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run.id for run in level]))
        level = _all(lambda start, below=below: client.read_flow_runs(flow_run_filter=below, limit=PAGE, offset=start))
    return found


def _artifacts(client: SyncPrefectClient, runs: list[UUID]) -> list[Artifact]:
    made = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=runs))
    return _all(lambda start: client.read_artifacts(artifact_filter=made, limit=PAGE, offset=start)) if runs else []


def _all(page: Callable[[int], list[Any]]) -> list[Any]:
    found = []
    while answer := page(len(found)):
        found += answer
    return found


def _delete(delete: Callable[[UUID], Any], which: UUID) -> None:
    with suppress(ObjectNotFound):  # it went with its flow run, or by another hand
        delete(which)
