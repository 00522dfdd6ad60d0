"""One piece of work on Ray, from its start to its report: a Ray Train job, or a plain task for what has no epochs."""

import contextlib
import re
import time
from collections.abc import Callable
from typing import Any

import ray
import ray.train
import ray.util.queue
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError
from ray.train import UserCallback
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

from autosparse.models import errors
from autosparse.models.specs.run_specs import JobSpec
from autosparse.storage.damage import made_again
from autosparse.storage.paths import ATTEMPTS
from autosparse.storage.store import Store
from autosparse.tasks.cluster import growth
from autosparse.tasks.cluster.connection import LAST_EVENT_S, MAX_RESTARTS, Cluster, Event
from autosparse.tasks.cluster.launcher import LauncherDiedError, Loop, give_back
from autosparse.tasks.worker.inputs import Launch, launched

START_FAILURES = 5
LOW_MEMORY = "low on memory"  # what Ray says of a worker that it killed


def run_training_job(
    cluster: Cluster,
    store: Store,
    *,
    name: str,
    folder: str,
    loop: Loop,
    config: dict[str, Any],
    job: JobSpec,
    on_event: Callable[[Event], None],
) -> dict[str, Any]:
    """Run `loop(config)` as one Ray Train job called `name`, checkpoints below `folder` of the store; return rank 0's report.

    The same name takes up the checkpoints of a broken attempt. Events of the workers reach `on_event` in order, with one of the kind
    `restart` for each time that workers were lost. Raises CapacityError at once when the job can never be placed, the loop's own
    AutosparseErrors without a restart, and JobError (MemoryLimitError where Ray says that it was the memory) when workers were lost
    more than MAX_RESTARTS times.
    """
    cluster.slots(job)  # raises
    with cluster.turn(job):
        return _tried(cluster, store, name, folder, loop, config, job, on_event)


def _tried(
    cluster: Cluster,
    store: Store,
    name: str,
    folder: str,
    loop: Loop,
    config: dict[str, Any],
    job: JobSpec,
    on_event: Callable[[Event], None],
) -> dict[str, Any]:
    filesystem, base = store.arrow()
    for number, attempt in enumerate(ATTEMPTS):
        cluster.check_running()
        listener = Restarts(on_event)
        done = cluster.listen(name, listener)
        run_config = ray.train.RunConfig(
            name=name + attempt,
            storage_path=f"{base}/{folder}",
            storage_filesystem=filesystem,
            failure_config=ray.train.FailureConfig(max_failures=MAX_RESTARTS, controller_failure_limit=START_FAILURES),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            callbacks=[Losses(cluster.events, name)],
        )
        earlier = tuple(f"{folder}/{name}{before}" for before in ATTEMPTS[:number])
        try:
            sent = launched(config, Launch(job=name, resources=job, earlier=earlier), cluster.events)
            value = fitted(cluster, name, job, loop, sent, run_config)
        except (ray.train.TrainingFailedError, RayError) as error:
            cluster.check_running()
            if ours := final_error(error):
                raise ours from error
            if "CheckpointManagerInitializationError" in repr(error) + repr(error.__cause__):
                continue  # the file that Ray Train resumes from was cut short by a kill; go on under a new name from what is whole
            raise lost_error(name, error, cluster, listener) from error
        finally:
            cluster.forget(name)
        done.wait(LAST_EVENT_S)
        return value_or_raise(value)
    raise errors.JobError(f"job {name}: its checkpoints could not be read three times over{made_again(store.uri(f'{folder}/{name}'))}")


def fitted(cluster: Cluster, name: str, job: JobSpec, loop: Loop, config: dict[str, Any], run_config: ray.train.RunConfig) -> Any:
    """What `fit()` of a Ray Train job returns. A cluster that is large enough but full of other runs is waited for; where its launcher
    dies, another one takes the job up."""
    lost = 0
    while True:
        try:
            with cluster.launchers.one() as launcher:
                return cluster.result(launcher.fit.remote(loop, config, run_config))
        except LauncherDiedError:
            lost += 1
            if lost > MAX_RESTARTS:
                raise
            cluster.check_running()
            give_back(str(run_config.name))
            cluster.tell(f"the process that controls {name} was lost; restart {lost}/{MAX_RESTARTS} from the last checkpoint")
        except ray.train.TrainingFailedError as error:
            full = isinstance(getattr(error, "controller_failure", None), WorkerGroupStartupTimeoutError)
            if not (full and growth.fits(job)):
                raise
            cluster.check_running()
            cluster.tell(f"waiting: the cluster has no room for {name} yet")


def run_remote(
    cluster: Cluster, *, name: str, body: Loop, config: dict[str, Any], job: JobSpec, on_event: Callable[[Event], None]
) -> dict[str, Any]:
    """Run `body(config)` once on the cluster, outside Ray Train: for work without epochs. Errors as in `run_training_job`."""
    single = JobSpec(cpus_per_worker=job.cpus_per_worker, gpus_per_worker=job.gpus_per_worker, precision=job.precision)
    cluster.slots(single)  # raises
    with cluster.turn(single):
        return _done(cluster, name, body, config, single, on_event)


def _done(
    cluster: Cluster, name: str, body: Loop, config: dict[str, Any], job: JobSpec, on_event: Callable[[Event], None]
) -> dict[str, Any]:
    done = cluster.listen(name, on_event)
    options = {"num_cpus": job.cpus_per_worker, "num_gpus": job.gpus_per_worker, "max_retries": MAX_RESTARTS, "name": name}
    try:
        remote = ray.remote(**options)(body)
        cluster.references[name] = remote.remote(launched(config, Launch(job=name, resources=job), cluster.events))
        value = cluster.result(cluster.references[name])
    except RayError as error:
        cluster.check_running()
        raise lost_error(name, error, cluster) from error
    finally:
        cluster.forget(name)
    done.wait(LAST_EVENT_S)
    return value_or_raise(value)


def value_or_raise(value: Any) -> dict[str, Any]:
    """Workers hand our own errors back as values: raised inside a worker they would count as lost workers and be retried."""
    if failure := value.get("error"):
        raise getattr(errors, failure["type"])(failure["message"], failure["details"])
    return value


class Losses(UserCallback):
    """In the process that controls a job: tells the driver of each loss of workers, and ends the job where it would only come again."""

    def __init__(self, events: ray.util.queue.Queue, job: str) -> None:
        self.queue: Any = events.actor  # asked without waiting: the controller must not
        self.job = job

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raises what one of our own errors says: Ray Train takes an error in here as final."""
        for error in worker_exceptions.values():
            if isinstance(error, errors.AutosparseError):
                raise error
        with contextlib.suppress(Exception):  # a lost line must not end a training
            self.queue.put_nowait.remote({"job": self.job, "kind": "lost", "message": _said(worker_exceptions)})


class Restarts:
    """Hears the events of one job: counts its losses, and tells of each restart instead."""

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        self.on_event = on_event
        self.last_words: list[str] = []
        self.count = 0
        self.said = ""  # of the last loss
        self.failure: Exception | None = None  # what ended a job of several orders during this one
        self.begin = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Pass an event on."""
        if event["kind"] == "last_words":
            self.last_words.append(event["message"])
        elif event["kind"] != "lost":
            self.on_event(event)
        else:
            self._lost(event)

    def _lost(self, event: Event) -> None:
        self.said = event["message"]
        if self.count < MAX_RESTARTS:
            self.count += 1
            said = ", ".join(self.last_words) or self.said
            self.last_words.clear()
            message = f"restart {self.count}/{MAX_RESTARTS} from the last checkpoint ({said})"
            self.on_event({"job": event["job"], "kind": "restart", "number": self.count, "message": message})


def final_error(error: BaseException) -> errors.AutosparseError | None:
    """The error of ours over which `Losses` ended a job."""
    inner: Any = error
    while inner is not None and not isinstance(inner, errors.AutosparseError):
        inner = getattr(inner, "controller_failure", None)
    return inner


def lost_error(name: str, error: BaseException | None, cluster: Cluster, restarts: Restarts | None = None) -> errors.AutosparseError:
    """What became of a job whose workers died: by `error`, or by the last that `restarts` heard of them."""
    error = error or (restarts.failure if restarts else None)
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    heard = (", ".join(restarts.last_words) or restarts.said) if restarts else ""
    said = ", ".join(restarts.last_words if restarts else ()) or (_said(failures) if failures else _reason(error) if error else heard)
    cluster.keep_logs = True
    tries = f"{time.monotonic() - restarts.begin:.0f} s of trying" if restarts and not restarts.count else f"{MAX_RESTARTS} restarts"
    line = f"job {name}: {said}; given up after {tries}; logs of its workers: {cluster.logs}"
    if any(_out_of_memory(one) for one in (error, *failures.values()) if one) or LOW_MEMORY in said.lower():
        return errors.MemoryLimitError(f"{line}; lower train.batch_size, or raise job.cpus_per_worker, so that fewer jobs run at once")
    return errors.JobError(line)


def _said(failures: dict[int, Exception]) -> str:
    """`rank 0: ...`: those that died themselves rather than those that lost their peer."""
    died = {rank: error for rank, error in failures.items() if isinstance(_cause(error), RayActorError)} or failures
    return ", ".join(f"rank {rank}: {_reason(error)}" for rank, error in sorted(died.items()))


def _reason(error: BaseException) -> str:
    """One line out of what Ray says."""
    cause = _cause(error)
    said, lines = " ".join(str(cause).split()), [line.strip() for line in str(cause).splitlines() if line.strip()]
    if not isinstance(cause, RayActorError):
        return f"{type(cause).__name__}: {lines[-1]}" if lines else type(cause).__name__
    if "error raised in its creation task" in said:
        return f"its start failed ({lines[-1]})"
    pid, detail = re.search(r"pid: (\d+)", said), re.search(r"Worker exit detail: (.*?\.)", said)
    process = f"process {pid[1]}" if pid else "its process"
    if "End of file" in said:  # all that Ray knows of it
        return f"{process} was killed, by somebody or by the kernel for want of memory, or crashed"
    return f"{process} died ({detail[1] if detail else said.rsplit('. ', 1)[-1]})"


def _cause(error: BaseException) -> BaseException:
    if isinstance(error, RayTaskError):
        return error.cause
    return getattr(error, "health_check_failure", error)


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, OutOfMemoryError) or LOW_MEMORY in str(_cause(error)).lower()
