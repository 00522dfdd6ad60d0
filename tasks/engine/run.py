"""A pipeline run in this process: its spec, and the open doors to storage, Ray and MLflow."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from prefect.context import get_run_context
from prefect.logging import get_run_logger
from prefect.utilities.urls import url_for

from autosparse.models.errors import DataError
from autosparse.models.specs.experiment import ExperimentSpec, plain_spec, stored_spec
from autosparse.models.specs.fields import Spec, to_plain
from autosparse.models.specs.run_specs import JobSpec
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths
from autosparse.storage.paths import report as report_of
from autosparse.storage.store import Store
from autosparse.tasks import own_code
from autosparse.tasks import settings as settings_module
from autosparse.tasks.checks.cleared import check_not_cleared
from autosparse.tasks.checks.disk_room import check_room
from autosparse.tasks.checks.own_source import check_same_code
from autosparse.tasks.checks.preflight import check_same_spec, check_same_versions, check_spec, claim_name, run_name
from autosparse.tasks.cluster.connection import Cluster, connected, job_id
from autosparse.tasks.cluster.series import Series
from autosparse.tasks.engine import progress
from autosparse.tasks.engine.flow_tags import tag_flow_run
from autosparse.tasks.engine.insisting import insisting
from autosparse.tasks.engine.lease import Lease
from autosparse.tasks.engine.lock import sole
from autosparse.tasks.report.notes import run_note
from autosparse.tasks.settings import Settings
from autosparse.tasks.tracking.reachable import check_experiment
from autosparse.tasks.tracking.tracker import Tracker
from autosparse.tasks.worker.inputs import RunInputs, config_of

Logger = logging.Logger | logging.LoggerAdapter[Any]


class Run:
    """What the tasks of one pipeline run share. A plain class: Prefect would walk through a dataclass in search of futures."""

    def __init__(
        self,
        *,
        spec: ExperimentSpec,
        paths: RunPaths,
        store: Store,
        cluster: Cluster,
        tracker: Tracker,
        ids: dict[str, Any],
        mlflow_run: str,
    ) -> None:
        self.spec = spec
        self.paths = paths
        self.store = store
        self.cluster = cluster
        self.tracker = tracker
        self.ids = ids
        self.mlflow_run = mlflow_run
        self._series: Series | None = None

    @property
    def name(self) -> str:
        """The name of the run, unique in its storage."""
        return self.paths.name

    def config(self, inputs: Spec) -> dict[str, Any]:
        """What a job with these inputs is told."""
        return job_config(self.spec, self.store, self.paths, inputs)

    @property
    def series(self) -> Series:
        """The long-lived jobs of the fan-out that is under way."""
        assert self._series, "the flow of the fan-out opened it"
        return self._series

    @contextmanager
    def back_to_back(self, job: JobSpec) -> Iterator[None]:
        """Inside the block jobs of that shape take one step after another."""
        self.store.delete(self.paths.series)  # of a run that was killed
        self._series = Series(self.cluster, self.store, job=job, name=f"{self.name}-{uuid4().hex[:8]}", folder=self.paths.series)
        try:
            yield
        finally:
            self._series.close()
        self.store.delete(self.paths.series)  # not over an error, which another one would hide

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Around a flow's waiting for its tasks: a cancellation ends the Ray jobs first, because the engine joins their threads."""
        try:
            with insisting():
                yield
        except BaseException as signal:
            if not isinstance(signal, Exception):
                self.tracker.call_off()
                self.cluster.stop()
            raise


def job_config(spec: ExperimentSpec, store: Store, paths: RunPaths, inputs: Spec) -> dict[str, Any]:
    """What a job of a run is told, as plain data: what every job is, and its own inputs."""
    return config_of(RunInputs(storage=store.root, name=paths.name, scoring=spec.scoring), inputs)


@contextmanager
def open_run(spec: ExperimentSpec, name: str | None, *, force: bool = False, recipe: str | None = None) -> Iterator[Run]:
    """Check the spec, connect to everything, and record the run; close or kill what is open in the end.

    `recipe`, which the spec was begun from, is a tag in Prefect.
    Waits while another process of this machine works on the run. Raises SpecError or CapacityError before anything is stored,
    ConflictError when another spec has that name, or the run was begun with other versions or other code
    of one's own (`force`: go on and say so in the record).
    """
    settings = settings_module.load()
    settings_module.export(settings)
    own_code.add(settings.code)
    paths = RunPaths(name or run_name(spec))
    check_spec(spec)
    store = open_store(settings.storage)
    with _sole(settings, paths) as lease:
        check_same_spec(store, paths, spec)
        versions = check_same_versions(store, paths, force=force) | check_same_code(store, paths, spec, force=force)
        check_room(store, paths, spec)
        check_experiment(settings.mlflow_uri)
        with _connected(settings, spec, paths) as (cluster, tracker, flow_run), tracker.closing(whole=True):
            _stop_without(lease, cluster)
            claim_name(store, paths, spec, versions)
            ids, mlflow_run = _record(settings, store, paths, tracker, flow_run)
            tag_flow_run(flow_run, spec, recipe)
            tracker.parameters(mlflow_run, plain_spec(spec))
            tracker.file(mlflow_run, "spec.json", store.read(paths.spec))
            if not store.exists(report_of(paths.summary)):  # else its description has the results already
                tracker.describe(mlflow_run, run_note(spec, paths.name, prefect=ids["prefect_url"]))
            yield Run(spec=spec, paths=paths, store=store, cluster=cluster, tracker=tracker, ids=ids, mlflow_run=mlflow_run)


@contextmanager
def reopen_run(name: str) -> Iterator[Run]:
    """A run that is there already, for work on what it made: its record and the state of its MLflow run stay as they are.

    Raises DataError where there is no such run.
    """
    settings = settings_module.load()
    settings_module.export(settings)
    own_code.add(settings.code)
    store, paths = open_store(settings.storage), RunPaths(name)
    if not store.exists(paths.run):
        raise DataError(f"run: {name!r} has no {paths.run} in {store.root}")
    check_not_cleared(store, paths)
    with _sole(settings, paths) as lease:
        check_experiment(settings.mlflow_uri)
        spec, ids = stored_spec(store.read_json(paths.spec)["spec"]), store.read_json(paths.run)
        with _connected(settings, spec, paths) as (cluster, tracker, _), tracker.closing():
            _stop_without(lease, cluster)
            mlflow_run = tracker.adopt("run", ids["mlflow_run_id"]) or tracker.open("run", name)
            ids = ids | {"mlflow_run_id": tracker.run_id(mlflow_run)}
            yield Run(spec=spec, paths=paths, store=store, cluster=cluster, tracker=tracker, ids=ids, mlflow_run=mlflow_run)


@contextmanager
def _sole(settings: Settings, paths: RunPaths) -> Iterator[Lease | None]:
    with sole(settings, paths.name, lambda holder: _tell(paths, f"waiting: run {paths.name} is at work in {holder}", log())) as lease:
        yield lease


def _stop_without(lease: Lease | None, cluster: Cluster) -> None:
    if lease:
        lease.on_loss(lambda who: cluster.stop(f"the run was taken over by {who}: this process was silent for too long"))


def _tell(paths: RunPaths, line: str, logger: Logger) -> None:
    """Why nothing happens, to the terminal and to Prefect."""
    progress.emit("waiting", paths.root, line)
    logger.info(line)


@contextmanager
def _connected(settings: Settings, spec: ExperimentSpec, paths: RunPaths) -> Iterator[tuple[Cluster, Tracker, Any]]:
    """Ray, MLflow and this flow's run. Raises CapacityError where a job of the spec cannot be placed."""
    logger = log()  # of the flow: jobs wait in threads that know none

    def tell(line: str) -> None:
        _tell(paths, line, logger)

    with connected(settings, own_code.named(settings.code, to_plain(spec)), tell) as cluster:
        _check_capacity(spec, cluster)
        flow_run: Any = getattr(get_run_context(), "flow_run")  # noqa: B009
        tags = {"autosparse.run": paths.name, "prefect.flow_run_id": str(flow_run.id), "ray.job_id": job_id()}
        yield cluster, Tracker(settings, tags), flow_run


def log() -> Logger:
    """The logger of the flow or task that runs here."""
    return get_run_logger()


def _check_capacity(spec: ExperimentSpec, cluster: Cluster) -> None:
    for field, job in (("irp", spec.irp.job), ("scorer", spec.scorer.job), ("fanout", spec.fanout.job)):
        try:
            cluster.slots(job)
        except Exception as error:
            raise type(error)(f"{field}.{error}") from None


def _record(settings: Settings, store: Store, paths: RunPaths, tracker: Tracker, flow_run: Any) -> tuple[dict[str, Any], str]:
    page = url_for("flow-run", obj_id=flow_run.id) if settings.prefect_api_url else None  # of Prefect Cloud's page as well
    tags = {"prefect.url": page} if page else {}
    mlflow_run = tracker.open("run", paths.name, tags=tags)
    ids = {
        "name": paths.name,
        "prefect_flow_run_id": str(flow_run.id),
        "prefect_flow_run_name": flow_run.name,
        "prefect_url": page,
        "mlflow_uri": tracker.uri,
        "mlflow_run_id": tracker.run_id(mlflow_run),
        "mlflow_url": tracker.address(mlflow_run),
        "ray_job_id": job_id(),
        "storage": store.uri(paths.root),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    store.write_json(paths.run, ids)
    return ids, mlflow_run
