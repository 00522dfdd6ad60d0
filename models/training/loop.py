"""One training loop for dense, masked and retrained networks, alone or as one rank of a process group.

Everything random is a function of (seed, epoch or step), so a training that starts again at step k walks the same path as one
that was never interrupted, and every rank can draw the whole batch and take its share.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from autosparse.models import seeding
from autosparse.models.errors import not_allowed
from autosparse.models.learning_rate import learning_rates
from autosparse.models.masks import mask as masks
from autosparse.models.training.examples import Pass
from autosparse.models.training.objective import Objective, Sums, check_names
from autosparse.models.training.step import autocast, finite, train_step
from autosparse.models.training.trainer import Trainer


@dataclass(frozen=True)
class EpochReport:
    """One epoch: the mean `loss` in it, the metrics on the test examples after it where they were looked at, `step` steps done in all."""

    epoch: int
    step: int
    loss: float
    metrics: dict[str, float]
    lr: float
    facts: dict[str, float] = field(default_factory=dict)  # what the parts of a method tell of themselves


def fit(
    trainer: Trainer,
    *,
    on_epoch: Callable[[EpochReport], None],
    after_step: Callable[[Trainer], None] | None = None,
) -> None:
    """Train from `trainer.step` to the end of the spec, calling `on_epoch` after each epoch and `after_step` after each step.

    Raises DivergedError when the loss is NaN or infinite: at once on CPU, within GPU_LOSS_CHECK_STEPS steps on a GPU.
    """
    per_epoch = trainer.steps_per_epoch
    rates = learning_rates(trainer.spec, per_epoch, trainer.objective.schedule)
    while trainer.step < trainer.spec.epochs * per_epoch:
        epoch, done = divmod(trainer.step, per_epoch)
        total, seen = torch.zeros((), device=trainer.device), per_epoch - done
        trainer.forward.train()  # not in every step: each switch invalidates what torch.compile has checked of the modules
        with seeding.scoped(trainer.seed, "dropout", epoch, trainer.rank.index):
            for batch in batches(trainer, epoch, start=done):
                total += train_step(trainer, batch, rates[trainer.step])
                trainer.step += 1
                if after_step:
                    after_step(trainer)
        _sync_buffers(trainer)
        assert trainer.mask is None or masks.violations(trainer.network, trainer.mask) == 0, "a masked weight came back"
        loss = finite(trainer, float(total) / seen)
        metrics = evaluate(trainer) if trainer.spec.evaluates(epoch) else {}
        lr = rates[trainer.step - 1][0] * trainer.scales[0]
        on_epoch(EpochReport(epoch, trainer.step, loss, metrics, lr, trainer.parts.report()))


def batches(trainer: Trainer, epoch: int, *, start: int = 0) -> Iterator[Any]:
    """This rank's share of each batch of an epoch from batch `start`."""
    size, rank = trainer.spec.batch_size, trainer.rank
    return trainer.train.epoch(
        Pass(
            seed=trainer.seed,
            epoch=epoch,
            start=start,
            size=size,
            mine=rank.share(size),
            rank=rank.index,
            data=trainer.data,
            channels_last=trainer.job.channels_last,
        )
    )


def evaluate(trainer: Trainer, *, batch_size: int | None = None) -> dict[str, float]:
    """The metrics on the test examples, over all ranks, the one that counts first.

    Raises SpecError for a metric that is missing or not finite.
    """
    trainer.network.eval()
    test, rank, objective = trainer.test, trainer.rank, trainer.objective
    every = torch.arange(len(test), device=trainer.device).split(batch_size or test.at_once or trainer.spec.batch_size)
    mine = every[rank.index :: rank.count]
    sums: dict[str, Tensor] = {}
    with torch.inference_mode(), autocast(trainer.job, trainer.device):
        for batch in test.batches(mine or every[:1], trainer.data, channels_last=trainer.job.channels_last):
            for name, part in objective.measure(trainer.network, batch).items():
                sums[name] = sums[name] + part if name in sums else part
    if rank.count > 1:
        for name in sorted(sums):  # a rank without examples has looked at the first ones, which are another's
            sums[name] = sums[name].clone() if mine else torch.zeros_like(sums[name])
            dist.all_reduce(sums[name])
    return checked_metrics(objective, sums)


def checked_metrics(objective: Objective, sums: Sums) -> dict[str, float]:
    """Name -> value, the metric that counts first. Raises SpecError where it is missing, or one is not finite or has a reserved name."""
    made = objective.metrics(sums)
    check_names(objective.metric, made)
    found, first = {name: float(value) for name, value in made.items()}, objective.metric.name
    if wrong := {name: value for name, value in found.items() if not math.isfinite(value)}:
        name, value = next(iter(wrong.items()))
        raise not_allowed(f"task.metrics: {name}", value, "finite")
    return {first: found.pop(first), **found}


def _sync_buffers(trainer: Trainer) -> None:
    if trainer.rank.count > 1:  # running statistics are those of rank 0, as in its checkpoint
        for buffer in trainer.network.buffers():
            dist.broadcast(buffer, src=0)
