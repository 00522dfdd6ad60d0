"""Milliseconds of a forward pass, of networks in turns: what else the machine does slows all of them."""

import statistics
import time
from collections.abc import Sequence

import torch
from torch import nn

from autosparse.models.networks.calls import Inputs, call


@torch.inference_mode()
def latencies(networks: Sequence[nn.Module], inputs: Inputs, *, seconds: float, most: int) -> tuple[list[float], int]:
    """The median milliseconds of each network for `inputs`, and the number of passes of each.

    They take turns, pass by pass, for `seconds` times their number and at most `most` passes each; one pass is measured whatever it takes.
    """
    for network in networks:
        _seconds(network, inputs)
    passes: list[list[float]] = []
    while not passes or (sum(map(sum, passes)) < seconds * len(networks) and len(passes) < most):
        passes.append([_seconds(network, inputs) for network in networks])
    return [1000 * statistics.median(column) for column in zip(*passes, strict=True)], len(passes)


def _seconds(network: nn.Module, inputs: Inputs) -> float:
    device = next((param.device for param in network.parameters() if param.is_cuda), None)
    start = time.perf_counter()
    call(network, inputs)
    if device:
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
