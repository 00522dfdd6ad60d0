"""The door to Ray: connects once per run, and leaves nothing behind. What runs on it is started in jobs.py and series.py.

Only launcher.py builds a trainer, and only start.py calls `ray.init`. The flow enters `connected()` in its main thread before any task is
submitted and leaves it after its tasks have ended. `fit()` runs in an actor, a launcher, and the calling task's thread waits
for its answer: a thread that waits inside `fit()` cannot be called off, one that waits for a killed actor is told at once.
"""

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import ray.util.queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from autosparse.models import errors
from autosparse.models.specs.run_specs import JobSpec
from autosparse.tasks.cluster import growth
from autosparse.tasks.cluster.capacity import check_capacity, slots_of
from autosparse.tasks.cluster.launcher import Launchers
from autosparse.tasks.cluster.lifeline import Lifeline
from autosparse.tasks.cluster.orphans import await_end, descendants
from autosparse.tasks.cluster.sharing import RUN, Turns, runs_alive
from autosparse.tasks.cluster.start import hint, keep_logs, kept_logs, name_of, start
from autosparse.tasks.settings import Settings

Event = dict[str, Any]

MAX_RESTARTS = 3  # of one job after lost workers
LAST_EVENT_S = 10
LOOK_S = 1  # how often a waiting thread looks whether its Ray still lives


@dataclass
class Cluster:
    """A connected Ray: the most that it had in all, or can grow to, and the queue on which workers tell what they do."""

    cpus: float
    gpus: float
    events: ray.util.queue.Queue
    launchers: Launchers
    lifeline: Lifeline
    logs: str  # where people find what the workers wrote
    tell: Callable[[str], None]  # why nothing happens, from any thread
    shared: bool  # with other runs
    keep_logs: bool = False  # beyond the life of a local Ray: some job failed
    stopped: str = ""  # why, once it was
    attached: list[Any] = field(default_factory=list)  # actors that end with the jobs
    references: dict[str, ray.ObjectRef[Any]] = field(default_factory=dict)  # of work outside Ray Train, by job name
    turns: Turns = field(default_factory=Turns)
    _listeners: dict[str, Callable[[Event], None]] = field(default_factory=dict)
    _done: dict[str, threading.Event] = field(default_factory=dict)
    _closed: threading.Event = field(default_factory=threading.Event)
    _deliverer: threading.Thread | None = None

    def slots(self, job: JobSpec) -> int:
        """How many such jobs fit at once. Raises CapacityError when not even one does, however far the cluster grows."""
        total = growth.most_resources() or ray.cluster_resources()
        self.cpus, self.gpus = max(self.cpus, total.get("CPU", 0)), max(self.gpus, total.get("GPU", 0))
        if not growth.is_unknown():
            check_capacity(job, self.cpus, self.gpus)
        return max(1, slots_of(job, self.cpus, self.gpus))

    def runs(self) -> int:
        """How many runs the Ray works for."""
        return runs_alive() if self.shared else 1

    @contextmanager
    def turn(self, job: JobSpec) -> Iterator[None]:
        """Wait until the run may place one job more, and the cluster is large enough for it. Raises CapacityError, JobError."""
        with self.turns.turn(lambda: self.slots(job), self.runs, self.check_running):
            growth.await_growth(job, self.tell, self.check_running)
            yield

    def result(self, reference: "ray.ObjectRef[Any]") -> Any:
        """What `ray.get` gives. Raises, beside what it raises, JobError within seconds after this driver's Ray has died."""
        while not ray.wait([reference], timeout=LOOK_S)[0]:
            self.lifeline.check()
        return ray.get(reference)

    def stop(self, why: str = "the run was interrupted") -> None:
        """End every job of this driver now; the threads that wait for them get an error, later jobs are refused."""
        self.stopped = why
        self.launchers.stop(why)
        for actor in self.attached:
            ray.kill(actor)
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
def connected(settings: Settings, code: Path | None = None, tell: Callable[[str], None] = lambda _: None) -> Iterator[Cluster]:
    """Connect to the Ray of the settings, or start a local one for this block. Raises ServiceError when it cannot be reached.

    `code` is a folder of the person's own modules, which travels to the nodes of a Ray that is not this machine's. `tell` hears, from any
    thread, what is waited for.
    """
    on_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    folder = start(settings, code, tell)
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
            events=ray.util.queue.Queue(actor_options={**here, "name": f"{RUN}{job_id()}"}),
            launchers=Launchers(here),
            lifeline=lifeline,
            logs=str(kept_logs(settings, folder)) if folder else f"{settings.ray_address}, in session_latest/logs of its node",
            tell=tell,
            shared=settings.ray_address is not None,
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
                keep_logs(folder.session / "logs", Path(cluster.logs))
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
        return Lifeline(path, f"ray: {name_of(settings)} has died under the run{hint(settings)}; the same command takes the run up")
    except OSError as error:
        raise errors.ServiceError(f"ray: the raylet of {name_of(settings)} could not be reached ({error}){hint(settings)}") from error


def _started() -> list["subprocess.Popen[bytes]"]:
    """The processes of a local Ray; none where Ray was only connected to."""
    node = ray._private.worker._global_node  # type: ignore[attr-defined]
    return [one.process for several in node.all_processes.values() for one in several] if node else []


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
