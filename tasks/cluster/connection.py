"""The door to Ray: connects once per run, and leaves nothing behind. What runs on it is started in ray_jobs.py.

Only this file calls `ray.init` and builds a trainer. The flow enters `connected()` in its main thread before any task is
submitted and leaves it after its tasks have ended. `fit()` runs in an actor, the launcher, and the calling task's thread waits
for its answer: a thread that waits inside `fit()` cannot be called off, one that waits for a killed actor is told at once.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.util.queue
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from autosparse.models import errors
from autosparse.models.specs.fields import from_plain
from autosparse.models.specs.run_specs import JobSpec
from autosparse.tasks.cluster.capacity import check_capacity
from autosparse.tasks.cluster.folder import RAY, RayFolder
from autosparse.tasks.cluster.lifeline import Lifeline
from autosparse.tasks.cluster.orphans import await_end, descendants
from autosparse.tasks.cluster.process_group import NodeTorchConfig
from autosparse.tasks.settings import Settings
from autosparse.tasks.worker.inputs import Launch

Event = dict[str, Any]
Loop = Callable[[dict[str, Any]], dict[str, Any]]

MAX_RESTARTS = 3  # of one job after lost workers
COLLECTIVE_TIMEOUT_S = 300
OBJECT_STORE_BYTES = 200 * 2**20  # jobs pass addresses, not tensors
LAST_EVENT_S = 10
LOOK_S = 1  # how often a waiting thread looks whether its Ray still lives
KEPT_LOGS = 5  # sessions of local Rays whose logs are kept after a job failed
MOST_JOBS = 128  # at once, a thread each; the flows keep to what fits


class LeanTrainer(DataParallelTrainer):
    """A Ray Train job without the process that manages data sets of Ray Data: no job has any, and it imports Ray for some seconds."""

    def _create_default_callbacks(self) -> list[Any]:
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, DatasetsCallback)]


@ray.remote
class Launcher:
    """Runs `fit()` of any number of Ray Train jobs, each in a thread of its own."""

    def fit(self, loop: Loop, config: dict[str, Any], run_config: ray.train.RunConfig) -> Any:
        """The return value of rank 0 of a job of the shape that `config` says. Raises ray.train.TrainingFailedError."""
        job = from_plain(Launch, config["launch"]).resources
        trainer = LeanTrainer(
            loop,
            train_loop_config=config,
            backend_config=NodeTorchConfig(backend="nccl" if job.gpus_per_worker else "gloo", timeout_s=COLLECTIVE_TIMEOUT_S),
            scaling_config=ray.train.ScalingConfig(
                num_workers=job.workers,
                use_gpu=job.gpus_per_worker > 0,
                resources_per_worker={"CPU": job.cpus_per_worker} | ({"GPU": job.gpus_per_worker} if job.gpus_per_worker else {}),
            ),
            run_config=run_config,
        )
        return trainer.fit().return_value


@dataclass
class Cluster:
    """A connected Ray: what it has in all, and the queue on which workers tell what they do."""

    cpus: float
    gpus: float
    events: ray.util.queue.Queue
    launcher: Any  # handle of a Launcher
    lifeline: Lifeline
    logs: str  # where people find what the workers wrote
    keep_logs: bool = False  # beyond the life of a local Ray: some job failed
    stopped: str = ""  # why, once it was
    attached: list[Any] = field(default_factory=list)  # actors that end with the jobs
    references: dict[str, ray.ObjectRef[Any]] = field(default_factory=dict)  # of work outside Ray Train, by job name
    _listeners: dict[str, Callable[[Event], None]] = field(default_factory=dict)
    _done: dict[str, threading.Event] = field(default_factory=dict)
    _closed: threading.Event = field(default_factory=threading.Event)
    _deliverer: threading.Thread | None = None

    def slots(self, job: JobSpec) -> int:
        """How many such jobs fit at once. Raises CapacityError when not even one does."""
        check_capacity(job, self.cpus, self.gpus)
        by_gpu = self.gpus // (job.workers * job.gpus_per_worker) if job.gpus_per_worker else float("inf")
        return int(min(self.cpus // (job.workers * job.cpus_per_worker), by_gpu))

    def result(self, reference: "ray.ObjectRef[Any]") -> Any:
        """What `ray.get` gives. Raises, beside what it raises, JobError within seconds after this driver's Ray has died."""
        while not ray.wait([reference], timeout=LOOK_S)[0]:
            self.lifeline.check()
        return ray.get(reference)

    def stop(self, why: str = "the run was interrupted") -> None:
        """End every job of this driver now; the threads that wait for them get an error, later jobs are refused."""
        self.stopped = why
        for actor in (self.launcher, *self.attached):
            ray.kill(actor)  # controllers and workers end with their owner
        for reference in list(self.references.values()):
            ray.cancel(reference, force=True)

    def attach(self, actor: Any) -> Any:
        """The actor, which `stop` kills as well, so that nobody waits for it."""
        self.attached.append(actor)
        return actor

    def check_running(self) -> None:
        """Raise JobError after `stop`, or once this driver's Ray has died."""
        if self.stopped:
            raise errors.JobError(self.stopped)
        self.lifeline.check()

    def listen(self, name: str, on_event: Callable[[Event], None]) -> threading.Event:
        """Have the events of a job delivered; what is returned is set when its last event has come."""
        done = self._done[name] = threading.Event()
        self._listeners[name] = on_event
        return done

    def forget(self, name: str) -> None:
        """Deliver nothing more of a job."""
        self._listeners.pop(name, None)
        self.references.pop(name, None)

    def deliver_no_more(self) -> None:
        """Wait until nobody asks the queue: a call that is under way while Ray shuts down ends the whole process."""
        self._closed.set()
        if self._deliverer:
            self._deliverer.join(LAST_EVENT_S)


@contextmanager
def connected(settings: Settings, code: Path | None = None) -> Iterator[Cluster]:
    """Connect to the Ray of the settings, or start a local one for this block. Raises ServiceError when it cannot be reached.

    `code` is a folder of the person's own modules, which travels to the nodes of a Ray that is not this machine's.
    """
    on_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    folder = _init(settings, code)
    if on_main_thread:
        signal.signal(signal.SIGTERM, before)  # ray.init replaced Prefect's handler: a cancelled run would end as crashed
    cluster = lifeline = None
    try:
        lifeline = _lifeline(settings)
        total = ray.cluster_resources()
        here: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": this_node()}  # no other node takes them along when it dies
        cluster = Cluster(
            cpus=total.get("CPU", 0),
            gpus=total.get("GPU", 0),
            events=ray.util.queue.Queue(actor_options=here),
            launcher=Launcher.options(**here, max_concurrency=MOST_JOBS, max_restarts=MAX_RESTARTS).remote(),
            lifeline=lifeline,
            logs=str(_kept_logs(settings, folder)) if folder else f"{settings.ray_address}, in session_latest/logs of its node",
        )
        cluster._deliverer = threading.Thread(target=_deliver, args=(cluster,), name="ray-events", daemon=True)
        cluster._deliverer.start()
        yield cluster
    finally:
        if cluster:
            cluster.deliver_no_more()
        if lifeline:
            lifeline.close()
        started = _started()
        workers = descendants(started)
        ray.shutdown()  # the driver owns controllers and workers: they end with it, here or on a shared cluster
        await_end(started, workers)
        if folder:
            if cluster and cluster.keep_logs:
                _keep_logs(folder.session / "logs", Path(cluster.logs))
            folder.remove()


def job_id() -> str:
    """Ray's id of this driver."""
    return ray.get_runtime_context().get_job_id()


def this_node() -> NodeAffinitySchedulingStrategy:
    """For actors that belong to this driver."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _lifeline(settings: Settings) -> Lifeline:
    here = ray.get_runtime_context().get_node_id()
    (path,) = [node["RayletSocketName"] for node in ray.nodes() if node["NodeID"] == here]
    try:
        return Lifeline(path, f"ray: {_name(settings)} has died under the run{_hint(settings)}; the same command takes the run up")
    except OSError as error:
        raise errors.ServiceError(f"ray: the raylet of {_name(settings)} could not be reached ({error}){_hint(settings)}") from error


def _started() -> list["subprocess.Popen[bytes]"]:
    """The processes of a local Ray; none where Ray was only connected to."""
    node = ray._private.worker._global_node  # type: ignore[attr-defined]
    return [one.process for several in node.all_processes.values() for one in several] if node else []


def _name(settings: Settings) -> str:
    return settings.ray_address or "a local Ray"


def _hint(settings: Settings) -> str:
    return "; `autosparse up` starts it again" if settings.environment else ""


def _kept_logs(settings: Settings, folder: RayFolder) -> Path:
    return settings.home / "ray-logs" / folder.session.name


def _keep_logs(logs: Path, kept: Path) -> None:
    """Copy the logs of a local Ray, of which nothing else is left, and drop the oldest copies; best effort."""
    with contextlib.suppress(OSError, shutil.Error):
        shutil.copytree(logs, kept, symlinks=True, ignore_dangling_symlinks=True)
        for old in sorted(kept.parent.iterdir())[:-KEPT_LOGS]:
            shutil.rmtree(old, ignore_errors=True)


def _init(settings: Settings, code: Path | None) -> RayFolder | None:
    """Connect, or start a local Ray in a folder of its own, which is returned."""
    common = {"namespace": "autosparse", "log_to_driver": False, "logging_level": "ERROR"}
    try:
        if settings.ray_address:
            elsewhere = code and not settings.environment  # `up` starts its Ray on this machine
            ray.init(address=settings.ray_address, runtime_env={"working_dir": str(code)} if elsewhere else None, **common)
            return None
        # Ray's own processes look for their cluster in this folder: in the shared one they would find that of somebody else, alive or dead
        folder = RayFolder.make()
        os.environ["RAY_TMPDIR"] = str(folder.path)
        ray.init(
            address="local",  # never a cluster that nobody asked for
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=True,  # Ray Train's clean-up of dead runs asks its state API
            dashboard_host="127.0.0.1",
            **common,
        )
        (folder.path / RAY / "ray_current_cluster").write_text(ray.get_runtime_context().gcs_address)
        return folder
    except Exception as error:  # a node that does not start in time is a bare Exception of Ray's
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise errors.ServiceError(f"ray: {_name(settings)} could not be reached ({reason}){_hint(settings)}") from error


def _deliver(cluster: Cluster) -> None:
    queue: Any = cluster.events.actor
    while not cluster._closed.is_set():
        try:
            event = cluster.result(queue.get.remote(LOOK_S))
        except ray.util.queue.Empty:
            continue
        except Exception:  # Ray is going away: nobody is left to tell
            return
        if event["kind"] == "end":
            cluster._done[event["job"]].set()
        elif listener := cluster._listeners.get(event["job"]):
            listener(event)
