"""How long a training step takes here: ten of them, on a copy that is thrown away."""

import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from autosparse.models.masks.reparametrized import copied
from autosparse.models.networks.calls import fitted, loss_of
from autosparse.models.networks.layout import memory_format

STEPS, LAST = 10, 7  # the first steps pay for what is set up once
PATIENCE_S = 30.0
RATE = 1e-3


def step_seconds(
    network: nn.Module,
    batches: Sequence[Any],
    *,
    device: torch.device | str = "cpu",
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    patience_s: float = PATIENCE_S,
    threads: int = 1,
) -> float:
    """The median of the last LAST of STEPS training steps on the batches in turn, in seconds, on as many threads as a job has.

    Forward, backward and a step of SGD; the network stays as it was. After `patience_s` no further step is begun, and the median is that
    of the steps after the first, or the first itself.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        probe = copied(network).to(device)
        probe.to(memory_format=memory_format(probe, channels_last=True)).train()  # type: ignore[call-overload]
        optimizer = torch.optim.SGD([one for one in probe.parameters() if one.requires_grad], lr=RATE, momentum=0.9)
        seconds: list[float] = []
        for batch in islice(cycle(batches), STEPS):
            start = time.perf_counter()
            with torch.enable_grad():
                optimizer.zero_grad()
                placed = fitted(probe, batch)
                value = loss(probe, placed) if loss else loss_of(probe, placed, cross_entropy)
                value.backward()
                optimizer.step()
            float(value.detach())  # waits for the device
            seconds.append(time.perf_counter() - start)
            if sum(seconds) > patience_s:
                break
    finally:
        torch.set_num_threads(before)
    return median(seconds[-LAST:] if len(seconds) == STEPS else seconds[1:] or seconds)
