"""One piece of work on Ray, from its start to its report: a Ray Train job, or a plain task for what has no epochs."""

from collections.abc import Callable
from typing import Any

import ray
import ray.train
from ray.exceptions import RayError

from models import errors
from models.spec_fields import to_plain
from models.specs import JobSpec
from storage.paths import ATTEMPTS
from storage.store import Store
from tasks.cluster import LAST_EVENT_S, MAX_RESTARTS, Cluster, Event, Loop, check_capacity

START_FAILURES = 5


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

    The same name takes up the checkpoints of a broken attempt. Events of the workers reach `on_event` in order. Raises
    CapacityError at once when the job can never be placed, the loop's own AutosparseErrors without a restart, and
    JobError when workers were lost more than MAX_RESTARTS times.
    """
    check_capacity(job, cluster.cpus, cluster.gpus)
    filesystem, base = store.arrow()
    for attempt in ATTEMPTS:
        cluster.check_running()
        done = cluster.listen(name, on_event)
        run_config = ray.train.RunConfig(
            name=name + attempt,
            storage_path=f"{base}/{folder}",
            storage_filesystem=filesystem,
            failure_config=ray.train.FailureConfig(max_failures=MAX_RESTARTS, controller_failure_limit=START_FAILURES),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        )
        try:
            sent = {**config, "job": name, "events": cluster.events, "resources": to_plain(job)}
            value = ray.get(cluster.launcher.fit.remote(loop, sent, run_config))
        except (ray.train.TrainingFailedError, RayError) as error:
            cluster.check_running()
            if "CheckpointManagerInitializationError" in repr(error) + repr(error.__cause__):
                continue  # the file that Ray Train resumes from was cut short by a kill; this job starts again under a new name
            raise errors.JobError(f"job {name}: {_reason(error)}") from error
        finally:
            cluster.forget(name)
        done.wait(LAST_EVENT_S)
        return _value_or_raise(value)
    raise errors.JobError(f"job {name}: its checkpoints could not be read three times over; remove {store.uri(folder)}")


def run_remote(
    cluster: Cluster, *, name: str, body: Loop, config: dict[str, Any], job: JobSpec, on_event: Callable[[Event], None]
) -> dict[str, Any]:
    """Run `body(config)` once on the cluster, outside Ray Train: for work without epochs. Errors as in `run_training_job`."""
    single = JobSpec(cpus_per_worker=job.cpus_per_worker, gpus_per_worker=job.gpus_per_worker, precision=job.precision)
    check_capacity(single, cluster.cpus, cluster.gpus)
    cluster.check_running()
    done = cluster.listen(name, on_event)
    options = {"num_cpus": job.cpus_per_worker, "num_gpus": job.gpus_per_worker, "max_retries": MAX_RESTARTS, "name": name}
    try:
        remote = ray.remote(**options)(body)
        sent = {**config, "job": name, "events": cluster.events, "resources": to_plain(single)}
        cluster.references[name] = remote.remote(sent)
        value = ray.get(cluster.references[name])
    except RayError as error:
        cluster.check_running()
        raise errors.JobError(f"job {name}: {_reason(error)}") from error
    finally:
        cluster.forget(name)
    done.wait(LAST_EVENT_S)
    return _value_or_raise(value)


def _value_or_raise(value: Any) -> dict[str, Any]:
    """Workers hand our own errors back as values: raised inside a worker they would count as lost workers and be retried."""
    if failure := value.get("error"):
        raise getattr(errors, failure["type"])(failure["message"])
    return value


def _reason(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
