"""A short training on given batches: how methods look ahead where there is no pipeline around them."""

from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from autosparse.models.errors import DivergedError
from autosparse.models.gradients import OwnLoss
from autosparse.models.masks.mask import Mask, apply_
from autosparse.models.masks.reparametrized import copied
from autosparse.models.networks.calls import loss_of

MOMENTUM = 0.9


def short_training(
    batches: Sequence[Any], network: nn.Module, mask: Mask | None, *, steps: int, lr: float, loss: OwnLoss | None = None
) -> nn.Module:
    """A copy of the network after `steps` steps of SGD on the batches in turn, with a learning rate that rises linearly to `lr`.

    Under `mask` its masked weights are zero after every step. Dropout is off, so that nothing is drawn. Raises DivergedError.
    """
    ahead = copied(network)
    ahead.train()
    for module in ahead.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    if mask is not None:
        apply_(ahead, mask)
    optimizer = torch.optim.SGD((param for param in ahead.parameters() if param.requires_grad), lr=lr, momentum=MOMENTUM)
    for step, batch in enumerate(islice(cycle(batches), steps)):
        optimizer.param_groups[0]["lr"] = lr * (step + 1) / steps
        optimizer.zero_grad()
        with torch.enable_grad():
            value = loss(ahead, batch) if loss else loss_of(ahead, batch, cross_entropy)
            value.backward()
        if not bool(value.detach().isfinite()):
            raise DivergedError(f"look_ahead_lr: {lr} is not allowed; allowed: one under which the loss stays finite (step {step})")
        optimizer.step()
        if mask is not None:
            apply_(ahead, mask)
    return ahead
