"""One training loop for dense, masked and retrained networks, alone or as one rank of a process group.

Everything random is a function of (seed, epoch or step), so a training that starts again at step k walks the same path as one
that was never interrupted, and every rank can draw the whole batch and take its share.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from models import masks, seeding
from models.errors import DivergedError, not_allowed
from models.images import Augmentation, ImageSet, draw, normalise, to_device
from models.masks import Mask
from models.specs import DataSpec, JobSpec, TrainSpec

GPU_LOSS_CHECK_STEPS = 50  # reading the loss waits for the device


@dataclass(frozen=True)
class EpochReport:
    """Means over one epoch: `loss` per image, `accuracy` in [0, 1] on the test images after it, `step` steps done in all."""

    epoch: int
    step: int
    loss: float
    accuracy: float
    lr: float


@dataclass(frozen=True)
class Rank:
    """This process's place among those that train together; each takes an equal, contiguous share of every batch."""

    index: int = 0
    count: int = 1

    def share(self, size: int) -> slice:
        """The rows of a batch of `size` that belong to this rank."""
        return slice(self.index * size // self.count, (self.index + 1) * size // self.count)


@dataclass
class Trainer:
    """A network in training: `network` holds the parameters, `forward` is the same or its DDP or compiled wrapper."""

    network: nn.Module
    forward: nn.Module
    spec: TrainSpec
    data: DataSpec  # with mean and std filled in
    job: JobSpec
    train: ImageSet
    test: ImageSet
    seed: int
    rank: Rank = Rank()
    mask: Mask | None = None
    step: int = 0
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        if self.spec.batch_size % self.rank.count:
            raise not_allowed("train.batch_size", self.spec.batch_size, f"a multiple of the {self.rank.count} workers")
        if self.steps_per_epoch < 1:
            raise not_allowed("train.batch_size", self.spec.batch_size, f"at most the {len(self.train.labels)} training images")
        # Decay, momentum and gradient of a masked weight are all zero, so fused SGD leaves it at exactly zero.
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=self.spec.lr,
            momentum=self.spec.momentum,
            nesterov=self.spec.nesterov,
            weight_decay=self.spec.weight_decay,
            fused=True,
        )
        if self.mask is not None:
            masks.apply_(self.network, self.mask)

    def restore(self, network: Mapping[str, Tensor], optimizer: dict[str, Any], step: int) -> None:
        """Go on from stored states: the next step is `step`.

        Momentum takes the memory layout of its parameter, because fused SGD walks through both in the order of memory.
        """
        self.network.load_state_dict(network)
        self.optimizer.load_state_dict(optimizer)
        for parameter, state in self.optimizer.state.items():
            if state.get("momentum_buffer") is not None:
                state["momentum_buffer"] = torch.empty_like(parameter).detach().copy_(state["momentum_buffer"])
        self.step = step

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass over the training images."""
        return len(self.train.labels) // self.spec.batch_size

    @property
    def device(self) -> torch.device:
        """Where images and parameters are."""
        return self.train.labels.device


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
    held = _held_gradients(trainer)
    while trainer.step < trainer.spec.epochs * per_epoch:
        epoch, done = divmod(trainer.step, per_epoch)
        total, seen = torch.zeros((), device=trainer.device), per_epoch - done
        trainer.forward.train()  # not in every step: each switch invalidates what torch.compile has checked of the modules
        with seeding.scoped(trainer.seed, "dropout", epoch, trainer.rank.index):
            for images, labels in batches(trainer, epoch, start=done):
                total += train_step(trainer, images, labels, rates[trainer.step], held)
                trainer.step += 1
                if after_step:
                    after_step(trainer)
        _sync_buffers(trainer)
        assert trainer.mask is None or masks.violations(trainer.network, trainer.mask) == 0, "a masked weight came back"
        loss = _finite(float(total) / seen, trainer.step)
        on_epoch(EpochReport(epoch, trainer.step, loss, evaluate(trainer), rates[trainer.step - 1][0]))


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


@lru_cache(maxsize=8)
def learning_rates(spec: TrainSpec, steps_per_epoch: int) -> tuple[tuple[float, float], ...]:
    """(learning rate, momentum) of every step, tabulated from torch's own schedulers so that any step can be entered directly."""
    total = spec.epochs * steps_per_epoch
    probe = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=spec.lr, momentum=spec.momentum)
    match spec.schedule:
        case "onecycle":
            scheduler = torch.optim.lr_scheduler.OneCycleLR(probe, max_lr=spec.lr, total_steps=total, pct_start=spec.warmup)
        case "steps":
            marks = [epoch * steps_per_epoch for epoch in spec.milestones]
            scheduler = torch.optim.lr_scheduler.MultiStepLR(probe, milestones=marks, gamma=spec.gamma)
        case "cosine":
            scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(probe, T_max=total)
        case _:
            scheduler = torch.optim.lr_scheduler.ConstantLR(probe, factor=1.0)
    table: list[tuple[float, float]] = []
    for _ in range(total):
        table.append((float(probe.param_groups[0]["lr"]), float(probe.param_groups[0]["momentum"])))
        probe.step()
        scheduler.step()
    return tuple(table)


def train_step(
    trainer: Trainer, images: Tensor, labels: Tensor, rates: tuple[float, float], held: list[tuple[nn.Parameter, Tensor]]
) -> Tensor:
    """One step of SGD at (learning rate, momentum) of a network in train mode; the mean loss over all ranks.

    `held` are masked weights with their masks.
    """
    for group in trainer.optimizer.param_groups:
        group["lr"], group["momentum"] = rates
    trainer.optimizer.zero_grad(set_to_none=True)
    with autocast(trainer.job, trainer.device):
        loss = functional.cross_entropy(trainer.forward(images), labels)
    loss.backward()
    if held:
        torch._foreach_mul_([parameter.grad for parameter, _ in held], [keep for _, keep in held])  # type: ignore
    loss = loss.detach().float()
    if trainer.rank.count > 1:
        dist.all_reduce(loss)
        loss = loss / trainer.rank.count
    if trainer.device.type == "cpu" or trainer.step % GPU_LOSS_CHECK_STEPS == 0:
        _finite(float(loss), trainer.step)
    trainer.optimizer.step()
    return loss


def autocast(job: JobSpec, device: torch.device) -> torch.autocast:
    """The precision of forward passes: bf16 autocast when asked for, or by default on a GPU."""
    bf16 = job.precision == "bf16" or (job.precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)


def evaluate(trainer: Trainer, *, batch_size: int = 500) -> float:
    """Share of test images classified right, over all ranks."""
    trainer.network.eval()
    right = torch.zeros((), dtype=torch.int64, device=trainer.device)
    count, rank, data = len(trainer.test.labels), trainer.rank, trainer.data
    with torch.inference_mode(), autocast(trainer.job, trainer.device):
        for start in range(rank.index * batch_size, count, batch_size * rank.count):
            rows = slice(start, start + batch_size)
            images = normalise(trainer.test.images[rows], data.mean, data.std, channels_last=trainer.job.channels_last)
            right += (trainer.network(images).argmax(1) == trainer.test.labels[rows]).sum()
    if rank.count > 1:
        dist.all_reduce(right)
    return int(right) / count


def _held_gradients(trainer: Trainer) -> list[tuple[nn.Parameter, Tensor]]:
    """Masked parameters with their masks as float factors in the parameter's own memory layout."""
    if trainer.mask is None or all(bool(keep.all()) for keep in trainer.mask.values()):
        return []
    parameters = dict(trainer.network.named_parameters())
    return [(parameters[name], torch.empty_like(parameters[name]).detach().copy_(keep)) for name, keep in trainer.mask.items()]


def _sync_buffers(trainer: Trainer) -> None:
    if trainer.rank.count > 1:  # running statistics are those of rank 0, as in its checkpoint
        for buffer in trainer.network.buffers():
            dist.broadcast(buffer, src=0)


def _finite(loss: float, step: int) -> float:
    if not math.isfinite(loss):
        raise DivergedError(f"train.loss: {loss} at step {step} is not allowed; allowed: finite (try a smaller train.lr)")
    return loss
