"""Learning rate and momentum of every step of a training, as tables."""

from functools import lru_cache

import torch

from autosparse.models.specs.run_specs import TrainSpec


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
