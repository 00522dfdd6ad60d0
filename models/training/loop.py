"""One training loop for dense, masked and retrained networks, alone or as one rank of a process group.

Everything random is a function of (seed, epoch or step), so a training that starts again at step k walks the same path as one
that was never interrupted, and every rank can draw the whole batch and take its share.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from autosparse.models import seeding
from autosparse.models.learning_rate import learning_rates
from autosparse.models.masks import mask as masks
from autosparse.models.networks.calls import logits_of
from autosparse.models.training.images import Augmentation, draw, normalise, to_device
from autosparse.models.training.step import autocast, finite, train_step
from autosparse.models.training.trainer import Trainer


@dataclass(frozen=True)
class EpochReport:
    """Means over one epoch: `loss` per image, `accuracy` in [0, 1] on the test images after it, `step` steps done in all."""

    epoch: int
    step: int
    loss: float
    accuracy: float
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
    rates = learning_rates(trainer.spec, per_epoch)
    while trainer.step < trainer.spec.epochs * per_epoch:
        epoch, done = divmod(trainer.step, per_epoch)
        total, seen = torch.zeros((), device=trainer.device), per_epoch - done
        trainer.forward.train()  # not in every step: each switch invalidates what torch.compile has checked of the modules
        with seeding.scoped(trainer.seed, "dropout", epoch, trainer.rank.index):
            for images, labels in batches(trainer, epoch, start=done):
                total += train_step(trainer, images, labels, rates[trainer.step])
                trainer.step += 1
                if after_step:
                    after_step(trainer)
        _sync_buffers(trainer)
        assert trainer.mask is None or masks.violations(trainer.network, trainer.mask) == 0, "a masked weight came back"
        loss = finite(trainer, float(total) / seen)
        on_epoch(EpochReport(epoch, trainer.step, loss, evaluate(trainer), rates[trainer.step - 1][0], trainer.parts.report()))


def batches(trainer: Trainer, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """This rank's share of each batch of an epoch from batch `start`: images (n, C, H, W) float32, labels (n,) int64."""
    size, data = trainer.spec.batch_size, trainer.data
    order = torch.randperm(len(trainer.train.labels), generator=seeding.generator(trainer.seed, "order", epoch)).to(trainer.device)
    mine = trainer.rank.share(size)
    drawn = _augmentations(trainer, epoch, start)
    for index in range(start, trainer.steps_per_epoch):
        rows = order[index * size : (index + 1) * size][mine]
        images = normalise(trainer.train.images[rows], data.mean, data.std, channels_last=trainer.job.channels_last)
        if data.augment != "none":
            images = drawn[index - start].apply(images, mine)
        yield images, trainer.train.labels[rows]


def _augmentations(trainer: Trainer, epoch: int, start: int) -> list[Augmentation]:
    """What is drawn for the batches of an epoch from `start` on, on the device: one copy an epoch, because a copy may wait for it."""
    size, data, first = trainer.spec.batch_size, trainer.data, epoch * trainer.steps_per_epoch
    if data.augment == "none":
        return []
    steps = range(first + start, first + trainer.steps_per_epoch)
    streams = (seeding.generator(trainer.seed, "augment", step) for step in steps)
    return to_device([draw(data.augment, size, data.pad, stream) for stream in streams], trainer.device)


def evaluate(trainer: Trainer, *, batch_size: int = 500) -> float:
    """Share of test images classified right, over all ranks."""
    trainer.network.eval()
    right = torch.zeros((), dtype=torch.int64, device=trainer.device)
    count, rank, data = len(trainer.test.labels), trainer.rank, trainer.data
    with torch.inference_mode(), autocast(trainer.job, trainer.device):
        for start in range(rank.index * batch_size, count, batch_size * rank.count):
            rows = slice(start, start + batch_size)
            images = normalise(trainer.test.images[rows], data.mean, data.std, channels_last=trainer.job.channels_last)
            right += (logits_of(trainer.network(images)).argmax(1) == trainer.test.labels[rows]).sum()
    if rank.count > 1:
        dist.all_reduce(right)
    return int(right) / count


def _sync_buffers(trainer: Trainer) -> None:
    if trainer.rank.count > 1:  # running statistics are those of rank 0, as in its checkpoint
        for buffer in trainer.network.buffers():
            dist.broadcast(buffer, src=0)
