"""What every body that runs on Ray starts with: its inputs, its rank and device, the store, and a line to the driver."""

import contextlib
import functools
import inspect
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
import ray.train
import torch
import torch.distributed as dist
from ray.train.torch import get_device

from autosparse.models import errors
from autosparse.models.networks.trial import ForeignError, persons_frame
from autosparse.models.specs.fields import Spec, from_plain
from autosparse.models.specs.run_specs import JobSpec
from autosparse.models.training.trainer import Rank
from autosparse.storage.disk import DISK_FULL, disk_error
from autosparse.storage.open_store import open_store
from autosparse.storage.store import Store
from autosparse.tasks import own_code
from autosparse.tasks.settings import load as load_settings
from autosparse.tasks.worker.inputs import Launch, RunInputs, Sent, read_sent
from autosparse.tasks.worker.loaders import close_all

Report = dict[str, Any]
Inputs = TypeVar("Inputs", bound=Spec)

NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")  # what torch says in a RuntimeError, on a CPU and on a GPU
DEVICE = tuple(filter(None, [getattr(torch, "AcceleratorError", None)]))  # torch has it from 2.8 on
LAST_WORDS_S = 5


@dataclass(frozen=True)
class Job:
    """One process of a job: what its run and its launcher tell it, and where it was placed."""

    run: RunInputs
    launch: Launch
    events: Any  # the queue of the driver
    store: Store
    rank: Rank
    device: torch.device

    @property
    def resources(self) -> JobSpec:
        """What the job occupies, and how it computes."""
        return self.launch.resources

    @property
    def cache(self) -> Path:
        """Where this node keeps decoded images."""
        return load_settings().cache

    def tell(self, kind: str, **fields: Any) -> None:
        """Send an event to the driver, from rank 0 only."""
        if self.rank.index == 0:
            self.events.put({"job": self.launch.job, "kind": kind, **fields})

    def last_words(self, reason: str) -> None:
        """Tell the driver, from any rank, why this process ends itself now; best effort."""
        event = {"job": self.launch.job, "kind": "last_words", "message": f"rank {self.rank.index}: {reason}"}
        with contextlib.suppress(Exception):
            ray.get(self.events.actor.put_nowait.remote(event), timeout=LAST_WORDS_S)


def body(kind: type[Inputs]) -> Callable[[Callable[[Job, Inputs], Report]], Callable[[dict[str, Any]], Report]]:
    """Make a body that Ray can run out of `function(job, inputs)`, whose inputs are of that kind.

    Our own errors go back as values, because they must not be retried. Ray hands back the value of rank 0 alone; another rank raises
    its error, over which the driver's side ends the job (tasks/cluster/jobs.py).
    """

    def made(function: Callable[[Job, Inputs], Report]) -> Callable[[dict[str, Any]], Report]:
        def run(config: dict[str, Any]) -> Report:
            sent = read_sent(config)
            job = _open(sent)
            try:
                report = function(job, from_plain(kind, sent.inputs, "job.inputs"))
            except Exception as error:
                ours = _ours(job, error, foreign=own_code.names_any(sent.inputs))
                if ours is None:
                    raise
                if job.rank.index:
                    raise ours from None
                report = {"error": {"type": _known(ours), "message": str(ours), "details": ours.details}}
            finally:
                close_all()
            job.tell("end")
            return report

        signature = inspect.signature(run)
        functools.update_wrapper(run, function)  # under whose name Ray looks it up
        run.__signature__ = signature  # type: ignore[attr-defined]  # Ray Train counts arguments, and would count the function's
        return run

    return made


def _ours(job: Job, error: Exception, *, foreign: bool) -> errors.AutosparseError | None:
    """What an error means for whoever made the spec; None for what another try may heal. `foreign`: code from outside takes part."""
    if isinstance(error, errors.AutosparseError):
        return error
    if isinstance(error, OSError):  # of another disk than the storage's: a full one stays full, however often the job is tried
        return disk_error(error.filename or tempfile.gettempdir(), error) if error.errno in DISK_FULL else None
    if limit := _memory_limit(job, error):
        return limit
    of_a_device = isinstance(error, (*DEVICE, dist.DistError)) or "CUDA" in str(error)
    return ForeignError("code of your own", error) if foreign and persons_frame(error) and not of_a_device else None


def _known(error: errors.AutosparseError) -> str:
    """The name of the error, or of what it is a kind of, that the driver knows."""
    return next(kind.__name__ for kind in type(error).__mro__ if hasattr(errors, kind.__name__))


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


def _open(sent: Sent) -> Job:
    resources = sent.launch.resources
    own_code.add(load_settings().code)
    torch.set_flush_denormal(True)  # masked training slows down threefold on denormal numbers
    torch.set_num_threads(resources.cpus_per_worker)
    try:
        context = ray.train.get_context()
        alone = resources.workers == 1  # perhaps as one of several workers
        rank = Rank() if alone else Rank(context.get_world_rank(), context.get_world_size())
        device = get_device()
    except RuntimeError:  # not a Ray Train job
        rank, device = Rank(), torch.device("cuda" if resources.gpus_per_worker else "cpu")
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = False
        torch.set_float32_matmul_precision("high")
    return Job(sent.run, sent.launch, sent.events, open_store(sent.run.storage), rank, device)
