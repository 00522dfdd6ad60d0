"""What every body that runs on Ray starts with: its rank and device, the store, and a line to the driver."""

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray.train
import torch
from ray.train.torch import get_device

from models import errors
from models.spec_fields import from_plain
from models.specs import DataSpec, JobSpec
from models.trainer import Rank
from storage.disk import DISK_FULL, disk_error
from storage.image_datasets import ImageArrays, load_images
from storage.store import Store, open_store
from tasks.settings import load as load_settings

Body = Callable[["Job"], dict[str, Any]]


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

    def spec(self, name: str, kind: type) -> Any:
        """A spec out of the config."""
        return from_plain(kind, self.config[name])


def body(function: Body) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Make a body that Ray can run out of `function(job)`: our own errors go back as values, because they must not be retried."""

    @functools.wraps(function)
    def run(config: dict[str, Any]) -> dict[str, Any]:
        job = _open(config)
        try:
            report = function(job)
        except errors.AutosparseError as error:
            report = _failed(error)
        except OSError as error:  # of another disk than the storage's: a full one stays full, however often the job is tried
            if error.errno not in DISK_FULL:
                raise
            report = _failed(disk_error(error.filename or tempfile.gettempdir(), error))
        job.tell("end")
        return report

    return run


def _failed(error: errors.AutosparseError) -> dict[str, Any]:
    return {"error": {"type": type(error).__name__, "message": str(error)}}


def _open(config: dict[str, Any]) -> Job:
    resources = from_plain(JobSpec, config["resources"])
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
