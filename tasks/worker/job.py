"""What every body that runs on Ray starts with: its rank and device, the store, and a line to the driver."""

import contextlib
import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import get_device

from autosparse.models import errors
from autosparse.models.specs.fields import from_plain
from autosparse.models.specs.run_specs import DataSpec, JobSpec
from autosparse.models.training.trainer import Rank
from autosparse.storage.disk import DISK_FULL, disk_error
from autosparse.storage.image_datasets import ImageArrays, load_images
from autosparse.storage.open_store import open_store
from autosparse.storage.store import Store
from autosparse.tasks import own_code
from autosparse.tasks.settings import load as load_settings

Body = Callable[["Job"], dict[str, Any]]

NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")  # what torch says in a RuntimeError, on a CPU and on a GPU
LAST_WORDS_S = 5


@dataclass(frozen=True)
class Job:
    """One process of a job: `config` as the driver sent it, `resources` as it was placed."""

    config: dict[str, Any]
    store: Store
    resources: JobSpec
    rank: Rank
    device: torch.device

    def tell(self, kind: str, **fields: Any) -> None:
        """Send an event to the driver, from rank 0 only."""
        if self.rank.index == 0:
            self.config["events"].put({"job": self.config["job"], "kind": kind, **fields})

    def last_words(self, reason: str) -> None:
        """Tell the driver, from any rank, why this process ends itself now; best effort."""
        event = {"job": self.config["job"], "kind": "last_words", "message": f"rank {self.rank.index}: {reason}"}
        with contextlib.suppress(Exception):
            ray.get(self.config["events"].actor.put_nowait.remote(event), timeout=LAST_WORDS_S)

    def spec(self, name: str, kind: type) -> Any:
        """A spec out of the config."""
        return from_plain(kind, self.config[name])


def body(function: Body) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Make a body that Ray can run out of `function(job)`: our own errors go back as values, because they must not be retried.

    Ray hands back the value of rank 0 alone; another rank raises its error, over which the driver's side ends the job (ray_jobs.py).
    """

    @functools.wraps(function)
    def run(config: dict[str, Any]) -> dict[str, Any]:
        job = _open(config)
        try:
            report = function(job)
        except (errors.AutosparseError, MemoryError, RuntimeError, OSError) as error:
            ours = _ours(job, error)
            if ours is None:
                raise
            if job.rank.index:
                raise ours from None
            report = {"error": {"type": type(ours).__name__, "message": str(ours), "details": ours.details}}
        job.tell("end")
        return report

    return run


def _ours(job: Job, error: Exception) -> errors.AutosparseError | None:
    """What an error means for whoever made the spec; None for what another try may heal."""
    if isinstance(error, errors.AutosparseError):
        return error
    if isinstance(error, OSError):  # of another disk than the storage's: a full one stays full, however often the job is tried
        return disk_error(error.filename or tempfile.gettempdir(), error) if error.errno in DISK_FULL else None
    return _memory_limit(job, error)


def _memory_limit(job: Job, error: Exception) -> errors.MemoryLimitError | None:
    """What running out of memory means; None for any other error."""
    said = str(error).partition("\n")[0]
    if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(words in said.lower() for words in NO_MEMORY):
        return None
    share = "job.gpus_per_worker" if job.device.type == "cuda" else "job.cpus_per_worker"
    return errors.MemoryLimitError(
        f"memory: rank {job.rank.index} on {job.device} has not enough ({said or type(error).__name__}); lower train.batch_size, or raise "
        f"{share}, so that fewer jobs run at once"
    )


def _open(config: dict[str, Any]) -> Job:
    resources = from_plain(JobSpec, config["resources"])
    own_code.add(load_settings().code)
    torch.set_flush_denormal(True)  # masked training slows down threefold on denormal numbers
    torch.set_num_threads(resources.cpus_per_worker)
    try:
        context = ray.train.get_context()
        rank = Rank(context.get_world_rank(), context.get_world_size())
        device = get_device()
    except RuntimeError:  # not a Ray Train job
        rank, device = Rank(), torch.device("cuda" if resources.gpus_per_worker else "cpu")
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = False
        torch.set_float32_matmul_precision("high")
    return Job(config, open_store(config["storage"]), resources, rank, device)


def images(data: DataSpec) -> ImageArrays:
    """The images of a data spec, decoded once per node and kept in the cache."""
    return load_images(
        name=data.name,
        path=data.path,
        download=data.download,
        train_limit=data.train_limit,
        test_limit=data.test_limit,
        cache=load_settings().cache,
    )
