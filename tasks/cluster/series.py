"""Work done back to back: long-lived Ray Train jobs, as many as there is room for, each of which takes the next order when it is done.

A Ray Train job starts four processes, some ten seconds of a core; an arm of a small network trains in less.
"""

import contextlib
import math
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import ray
import ray.train
from ray.exceptions import RayError

from autosparse.models import errors
from autosparse.models.specs.fields import to_plain
from autosparse.models.specs.run_specs import JobSpec
from autosparse.storage.store import Store
from autosparse.tasks.cluster import growth
from autosparse.tasks.cluster.capacity import fair_share
from autosparse.tasks.cluster.connection import LAST_EVENT_S, MAX_RESTARTS, Cluster, Event, this_node
from autosparse.tasks.cluster.jobs import START_FAILURES, Losses, Restarts, final_error, fitted, lost_error, value_or_raise
from autosparse.tasks.cluster.orders import Orders
from autosparse.tasks.worker.inputs import Launch, launched

PATIENCE_S = 10.0  # of a job without work
SHARE_S = 2.0  # between two looks at how many runs there are
TURN_S = 120.0  # how long a job keeps its place where there are more runs than places


class Series:
    """Orders of one job shape. `name` and `folder` are those of its jobs in the store; nothing in them is needed afterwards."""

    def __init__(self, cluster: Cluster, store: Store, *, job: JobSpec, name: str, folder: str) -> None:
        self.cluster, self.store, self.job, self.name, self.folder = cluster, store, job, name, folder
        self.at_once = cluster.slots(job)
        self.orders: Any = cluster.attach(Orders.options(scheduling_strategy=this_node()).remote(MAX_RESTARTS + 1))
        self._lock = threading.Lock()
        self._closed = False
        self._started = 0
        self._jobs: dict[str, threading.Thread] = {}  # by job name
        self._groups: dict[str, str] = {}  # of jobs
        self._open: Counter[str] = Counter()  # orders by group
        self._listeners: dict[str, Restarts] = {}  # by order
        self._holds: dict[str, str] = {}  # job -> order
        self._ended = threading.Event()
        self._sharing = threading.Thread(target=self._share, name="share", daemon=True)
        if cluster.shared:
            self._look_at_share()
            self._sharing.start()

    def run(
        self, *, name: str, body: Callable[..., Any], config: dict[str, Any], group: str, alone: bool, earlier: tuple[str, ...],
        on_event: Callable[[Event], None],
    ) -> dict[str, Any]:  # fmt: skip
        """What `body(config)` returns in the next free job of the group; `alone` = on one of its workers, whatever its shape.

        Checkpoints are looked for in the folders `earlier` of the store and written to the first of them. Errors as in
        `run_training_job`.
        """
        self.cluster.check_running()
        if self._closed:
            raise errors.JobError(f"job {name}: the fan-out ended before it began")
        listener = self._listeners[name] = Restarts(on_event)
        done = self.cluster.listen(name, listener)
        shape = JobSpec(cpus_per_worker=self.job.cpus_per_worker, gpus_per_worker=self.job.gpus_per_worker, precision=self.job.precision)
        launch = Launch(job=name, resources=shape if alone else self.job, earlier=earlier, checkpoints=earlier[0] if earlier else None)
        order = {"name": name, "body": f"{body.__module__}:{body.__qualname__}", "alone": alone}
        outcome = self.orders.put.remote(group, {**order, "config": launched(config, launch, self.cluster.events)})
        try:
            with self._lock:
                self._open[group] += 1
            self._start(group)
            value = self.cluster.result(outcome)
        except RayError as error:
            self.cluster.check_running()
            raise lost_error(name, error, self.cluster, listener) from error
        finally:
            self.cluster.forget(name)
            with self._lock:
                self._open[group] -= 1
                self._listeners.pop(name, None)
        if value.get("lost"):
            raise lost_error(name, None, self.cluster, listener)
        done.wait(LAST_EVENT_S)
        return value_or_raise(value)

    def close(self) -> None:
        """Let the jobs end, and wait for them; what was ordered before is done, nothing more is taken."""
        self._closed = True
        if not self.cluster.stopped:
            self.orders.close.remote()
        while threads := list(self._jobs.values()):
            for thread in threads:
                thread.join()
        self._ended.set()
        if self.cluster.shared:
            self._sharing.join()

    def _share(self) -> None:
        """Take more or less of the cluster as other runs go and come."""
        while not self._ended.wait(SHARE_S):
            with contextlib.suppress(RayError, errors.AutosparseError):  # whoever waits for an order is told
                self.cluster.check_running()
                self._look_at_share()
                self._start_waiting()

    def _look_at_share(self) -> None:
        slots, runs = self.cluster.slots(self.job), self.cluster.runs()
        self.at_once = fair_share(slots, runs)
        self.orders.limit.remote(self.at_once, TURN_S if runs > slots else math.inf)

    def _start_waiting(self) -> None:
        with self._lock:
            waiting = [of for of, count in self._open.items() if count]
        for of in waiting:
            self._start(of)

    def _start(self, group: str) -> None:
        """Start another job for a group where it has work for one and the cluster has room."""
        with self._lock:
            mine = sum(of == group for of in self._groups.values())
            if self.cluster.stopped or len(self._jobs) >= self.at_once or mine >= self._open[group]:
                return
            self._started += 1
            name = f"{self.name}-{self._started}"
            self._groups[name] = group
            self._jobs[name] = threading.Thread(target=self._serve, args=(name, group), name=name, daemon=True)
            self._jobs[name].start()

    def _serve(self, name: str, group: str) -> None:
        from autosparse.tasks.worker.series import serve

        self.cluster.listen(name, lambda event: self._heard(name, event))
        filesystem, base = self.store.arrow()
        config = {"launch": to_plain(Launch(job=name, resources=self.job)), "events": self.cluster.events}
        config |= {"orders": self.orders, "group": group, "patience": PATIENCE_S}
        run_config = ray.train.RunConfig(
            name=name,
            storage_path=f"{base}/{self.folder}",
            storage_filesystem=filesystem,
            failure_config=ray.train.FailureConfig(max_failures=MAX_RESTARTS, controller_failure_limit=START_FAILURES),
            callbacks=[Losses(self.cluster.events, name)],
        )
        try:
            growth.await_growth(self.job, self.cluster.tell, self.cluster.check_running)
            fitted(self.cluster, name, self.job, serve, config, run_config)
        except (ray.train.TrainingFailedError, RayError, errors.AutosparseError) as error:
            if not self.cluster.stopped:
                self._failed(name, group, error)
        finally:
            self.cluster.forget(name)
            with self._lock:
                del self._jobs[name], self._groups[name]
            self._start_waiting()

    def _failed(self, name: str, group: str, error: Exception) -> None:
        """One of our own errors, from any rank, is the outcome of the order that the job held; other failures are tried again."""
        ours = final_error(error)
        outcome = {"error": {"type": type(ours).__name__, "message": str(ours), "details": ours.details}} if ours else None
        if listener := self._listeners.get(self._holds.get(name, "")):
            listener.failure = error
        with contextlib.suppress(RayError):  # a Ray that has died: whoever waits for the order is told so
            ray.get(self.orders.give_up.remote(name, group, outcome))

    def _heard(self, name: str, event: Event) -> None:
        """Of a job itself: which order it took, and losses of workers, which are that order's."""
        if event["kind"] == "taken":
            self._holds[name] = event["order"]
        elif listener := self._listeners.get(self._holds.get(name, "")):
            listener({**event, "job": self._holds[name]})
