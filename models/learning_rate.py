"""Learning rate and momentum of every step of a training, as tables."""

import math
from collections.abc import Callable
from functools import lru_cache

import torch

from autosparse.models.errors import not_allowed
from autosparse.models.networks.trial import guarded
from autosparse.models.specs.run_specs import TrainSpec

Rates = tuple[tuple[float, float], ...]


def learning_rates(spec: TrainSpec, steps_per_epoch: int, share: Callable[[int, int], float] | None = None) -> Rates:
    """(learning rate, momentum) of every step: by the schedule of the spec, or lr times `share` of a step and the number of steps.

    Raises SpecError for a share that is no number >= 0, ForeignError where it raises.
    """
    if share is None:
        return _scheduled(spec, steps_per_epoch)
    total, of_task = spec.epochs * steps_per_epoch, share
    shares = guarded("task.schedule", lambda: [of_task(step, total) for step in range(total)])
    for step, value in enumerate(shares):
        if not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise not_allowed(f"task.schedule({step}, {total})", value, "a number >= 0, the share of train.lr")
    return tuple((spec.lr * value, spec.momentum) for value in shares)


@lru_cache(maxsize=8)
def _scheduled(spec: TrainSpec, steps_per_epoch: int) -> Rates:
    """Tabulated from torch's own schedulers so that any step can be entered directly."""
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
