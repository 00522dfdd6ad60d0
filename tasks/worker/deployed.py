"""What the network of an arm costs where it is used: without the channels that are zero, on a CPU, in numbers that a person pays in."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from autosparse.library.compaction import compact
from autosparse.models.channels.examples import example_of
from autosparse.models.channels.plain import plain_copy
from autosparse.models.errors import AutosparseError
from autosparse.models.masks import mask as masks
from autosparse.models.networks.calls import Inputs, Shape, fitted, is_shape, mapped
from autosparse.models.networks.flops import forward_macs
from autosparse.models.networks.latency import latencies
from autosparse.models.networks.stored import stored_bytes

BATCHES = {
    1: 0.025,
    32: 0.075,
}  # images at a time, of which the latency is measured -> seconds of passes; one is measured whatever it takes
MOST = 100  # passes


def deployed(
    network: nn.Module, shape: Shape, metered: Mapping[str, float] | None = None, dense: nn.Module | None = None
) -> dict[str, Any]:
    """Costs of a trained network, which stays as it is, as does everything that is random.

    It is deployed without the channels that its zeros cut off, where `compact` can take them out; else as it is, and `reason` says why.
    `nonzeros`: prunable weights, the classifier's among them, that are not exactly zero; kept weights that lie on no path are gone with
    their channels. `parameters`: all of them, zeros too. `multiply_adds`: dense ones per example of this `shape`; layers in `metered`
    cost what stands there. `bytes`: `stored_bytes` of parameters and running statistics. `latency_ms`: the median of `n` forward passes
    on one thread, by images at a time; `dense` beside it is that of the `dense` network, pass by pass in turns, because what else the
    machine does slows both.
    """
    with torch.random.fork_rng(devices=()):
        small, why = _compacted(plain_copy(network)[0].cpu().eval(), example_of(shape))
        macs, known = forward_macs(small, shape), metered or {}
        return {
            "nonzeros": sum(map(_nonzero, masks.prunable(small).values())),
            "parameters": sum(param.numel() for param in small.parameters()),
            "multiply_adds": sum(known.get(name, count) for name, count in macs.items()),
            "bytes": stored_bytes([*small.parameters(), *small.buffers()]),
            "latency_ms": _latencies(small, shape, plain_copy(dense)[0].cpu().eval() if dense else None),
            **({"reason": why} if why else {}),
        }


def _compacted(network: nn.Module, example: Inputs) -> tuple[nn.Module, str]:
    """The smaller network, or the whole one and why it stays whole."""
    if all(_nonzero(weight) == weight.numel() for weight in masks.prunable(network).values()):
        return network, ""
    try:
        return compact(network, fitted(network, example)), ""
    except AutosparseError as error:
        return network, str(error)


def _nonzero(weight: Tensor) -> int:
    return int(torch.count_nonzero(weight.detach()))


def _latencies(network: nn.Module, shape: Shape, dense: nn.Module | None) -> dict[str, dict[str, float]]:
    """Number of images at a time -> median milliseconds of a forward pass and the number of passes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {str(batch): _latency(network, _batch(shape, batch), dense, seconds) for batch, seconds in BATCHES.items()}
    finally:
        torch.set_num_threads(threads)


def _batch(shape: Shape, count: int) -> Inputs:
    """So many black images, or so many times the one example."""
    if is_shape(shape):
        return torch.zeros(count, *shape)
    return mapped(lambda tensor: tensor.repeat_interleave(count, 0) if tensor.dim() else tensor, shape)


def _latency(network: nn.Module, images: Inputs, dense: nn.Module | None, seconds: float) -> dict[str, float]:
    networks = [network, dense] if dense else [network]
    medians, passes = latencies(networks, fitted(network, images), seconds=seconds, most=MOST)
    return {"median": medians[0], "n": passes, **({"dense": medians[1]} if dense else {})}
