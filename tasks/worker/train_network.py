"""A training inside a Ray Train job: takes up the last checkpoint, reports each epoch, hands back the history.

Shared by IRP rounds and arms, so that both are the same training under the same protocol.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn

from autosparse.library.mask_file import weights_digest
from autosparse.models.errors import AutosparseError, DataError
from autosparse.models.masks import mask as masks
from autosparse.models.masks.mask import Mask
from autosparse.models.methods.contract import Parts
from autosparse.models.methods.outcome import finite
from autosparse.models.networks.layout import memory_format
from autosparse.models.specs.run_specs import TrainSpec
from autosparse.models.training.loop import EpochReport, fit
from autosparse.models.training.objective import RESERVED
from autosparse.models.training.trainer import Trainer
from autosparse.storage.checkpoints import (
    CHECKPOINT_FILES,
    STATE,
    TrainingState,
    dump_tensors,
    load_tensors,
    load_training_state,
    save_training_state,
)
from autosparse.storage.mask_files import load_mask
from autosparse.storage.paths import RunPaths
from autosparse.tasks.worker.job import Job
from autosparse.tasks.worker.problem import Problem
from autosparse.tasks.worker.watchdog import watched


def initial_digest(network: nn.Module) -> str:
    """32 hex digits over a network's state by name, type, shape and value: whether two jobs began with the same weights."""
    return weights_digest(network.state_dict(), {})[:32]


def train_network(
    job: Job,
    network: nn.Module,
    problem: Problem,
    *,
    training: TrainSpec,
    mask: Mask | None,
    seed: int,
    start_step: int = 0,
    after_step: Callable[[Trainer], None] | None = None,
) -> list[dict[str, Any]]:
    """Train `network` (in place) from `start_step` or this job's last checkpoint; return one record per epoch."""
    trainer = open_trainer(job, network, problem, training=training, mask=mask, seed=seed, start_step=start_step)
    return train(job, trainer, after_step=after_step)


def place(job: Job, network: nn.Module) -> nn.Module:
    """The network on the job's device and in its memory layout, in place; what a method attaches comes after that."""
    layout = memory_format(network, channels_last=job.resources.channels_last)
    return network.to(job.device, memory_format=layout)  # type: ignore[call-overload]


def open_trainer(
    job: Job,
    network: nn.Module,
    problem: Problem,
    *,
    training: TrainSpec,
    mask: Mask | None,
    seed: int,
    start_step: int = 0,
    parts: Parts | None = None,
) -> Trainer:
    """A trainer of `network` at `start_step`, on the job's device; `parts` are attached to the network already."""
    _assert_same_mask(job, mask)
    place(job, network)
    return Trainer(
        network=network,
        forward=_wrap(job, network),
        spec=training,
        data=problem.data,
        job=job.resources,
        train=problem.examples("train", job.device),
        test=problem.examples("test", job.device),
        objective=problem.objective(training),
        seed=seed,
        rank=job.rank,
        mask={name: keep.to(job.device) for name, keep in mask.items()} if mask else None,
        step=start_step,
        parts=parts or Parts(),
    )


def train(
    job: Job,
    trainer: Trainer,
    *,
    after_step: Callable[[Trainer], None] | None = None,
    figures: Callable[[Trainer, int], dict[str, float]] = lambda trainer, steps: {},
) -> list[dict[str, Any]]:
    """Train from where the trainer stands, or from this job's last checkpoint, to the end; return one record per epoch.

    `figures` of the trainer and the number of steps in an epoch go into its record. Each epoch ends with `ray.train.report`: metrics
    and, from rank 0, a checkpoint of everything that the next epoch needs.
    """
    begin = trainer.step
    history = _take_up(job, trainer)
    clock = [time.monotonic()]

    def on_epoch(report: EpochReport) -> None:
        steps = report.step - (history[-1]["step"] if history else begin)
        known = {"epoch": report.epoch, "step": report.step, "loss": report.loss, **report.metrics, "lr": report.lr}
        known |= {"facts": finite(report.facts), **figures(trainer, steps)}
        record = {**known, "seconds": time.monotonic() - clock[0]}
        history.append(record)
        job.tell("epoch", **record, epochs=trainer.spec.epochs, metrics=list(report.metrics))
        _report(job, trainer, record, history)
        clock[0] = time.monotonic()

    with watched(job) as alive:

        def step_done(trainer: Trainer) -> None:
            alive()
            if after_step:
                after_step(trainer)

        fit(trainer, on_epoch=on_epoch, after_step=step_done)
    return history


def metrics_in(record: dict[str, Any]) -> dict[str, float]:
    """The metrics of an epoch's record, the one that counts first; other values in it have reserved names."""
    return {name: value for name, value in record.items() if name not in RESERVED}


def load_state(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Put back weights, BatchNorm affine and statistics, biases: everything, bit for bit."""
    network.load_state_dict(state, strict=True)


def dump_state(network: nn.Module) -> bytes:
    """Weights and buffers as safetensors."""
    return dump_tensors({name: tensor.detach().cpu() for name, tensor in network.state_dict().items()})


def read_state(job: Job, key: str) -> dict[str, Tensor]:
    """Weights and buffers from the store."""
    return load_tensors(job.store.read(key), source=job.store.uri(key))


def read_mask(job: Job, key: str) -> Mask:
    """A mask from the store."""
    return load_mask(job.store.read(key), source=job.store.uri(key))


def _wrap(job: Job, network: nn.Module) -> nn.Module:
    forward = torch.compile(network) if job.resources.compile else network
    if job.rank.count == 1:
        return forward  # type: ignore[return-value]
    devices = [job.device.index] if job.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(forward, device_ids=devices)  # type: ignore[arg-type]


def _assert_same_mask(job: Job, mask: Mask | None) -> None:
    if job.rank.count > 1:
        sums: list[Any] = [None] * job.rank.count
        dist.all_gather_object(sums, masks.checksum(mask) if mask else None)
        if len(set(sums)) > 1:
            raise AutosparseError(f"mask: ranks hold different masks {sums}; allowed: one and the same")


def _take_up(job: Job, trainer: Trainer) -> list[dict[str, Any]]:
    """Go on from the last checkpoint, where there is one; the records of the epochs before it."""
    if job.launch.checkpoints:
        state = _rescued(job)
    elif checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            state = load_training_state(Path(folder))
    else:
        state = _rescued(job)
    if state is None:
        return []
    trainer.restore(state.network, state.optimizer, state.progress["step"])
    return state.progress["history"]


def _rescued(job: Job) -> TrainingState | None:
    """The furthest whole checkpoint of the attempts before this one, of which Ray Train can no longer tell what they had."""
    found = []
    for attempt in job.launch.earlier:
        for key in job.store.list(attempt):
            if key.endswith(f"/{STATE}"):
                with contextlib.suppress(DataError), tempfile.TemporaryDirectory() as folder:  # cut short by the same kill
                    for name in CHECKPOINT_FILES:
                        Path(folder, name).write_bytes(job.store.read(f"{key.removesuffix(STATE)}{name}"))
                    found.append(load_training_state(Path(folder)))
    return max(found, key=lambda state: state.progress["step"], default=None)


def _report(job: Job, trainer: Trainer, record: dict[str, Any], history: list[dict[str, Any]]) -> None:
    if job.launch.checkpoints:
        _keep(job, job.launch.checkpoints, trainer, history)
        return
    metrics = {name: record[name] for name in ("epoch", "step", "loss", trainer.objective.metric.name, "lr") if name in record}
    if job.rank.index:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        progress = {"step": trainer.step, "history": history}
        save_training_state(Path(folder), trainer.network.state_dict(), trainer.state(), progress)
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        with job.store.reporting("write", f"{RunPaths(job.run.name).training}/{job.launch.job}", size):
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _keep(job: Job, folder: str, trainer: Trainer, history: list[dict[str, Any]]) -> None:
    """Put a checkpoint into the store, the file by which it is found last, and drop the ones before."""
    if job.rank.index:
        return
    before, place = job.store.list(folder), f"{folder}/step-{trainer.step:09d}"
    with tempfile.TemporaryDirectory() as local:
        save_training_state(Path(local), trainer.network.state_dict(), trainer.state(), {"step": trainer.step, "history": history})
        for name in sorted(CHECKPOINT_FILES, key=lambda name: name == STATE):
            job.store.upload(Path(local, name), f"{place}/{name}")
    for key in before:
        if not key.startswith(place):
            job.store.delete(key)
