"""BatchNorm statistics of weights that no training has seen: after an edit, between two networks, on a plane."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from autosparse.models.errors import not_allowed
from autosparse.models.gradients import Batches, batch_statistics


@torch.no_grad()
def reestimated(network: nn.Module, batches: Batches, params: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """All buffers of the network by name, the statistics of its BatchNorms taken anew under `params` (default: its own weights).

    Each batch of b images enters with momentum b / (images seen + b), so the result is the mean over images of the batches' means
    and (unbiased) variances: the statistics of one batch exactly; of several, the mean of a BatchNorm that no other one precedes
    is that of all images at once, while what lies between the means of the batches is missing from the variance. Layers other
    than BatchNorm are in eval mode. The network itself is left as it was; without a BatchNorm no batch is run.

    Raises SpecError without a batch, or for a batch of one image, which has no variance.
    """
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    norms = {name: module for name, module in network.named_modules() if isinstance(module, _BatchNorm)}
    if not norms:
        return buffers
    sizes = [len(images) for images, _ in batches]
    if not sizes:
        raise not_allowed("batches", 0, ">= 1")
    if min(sizes) < 2:
        raise not_allowed("batches", f"a batch of {min(sizes)}", "batches of at least 2 images for a network with BatchNorm")
    _forget(buffers, norms)
    seen = 0
    with batch_statistics(network), _momenta(list(norms.values())):
        for (images, _), size in zip(batches, sizes, strict=True):
            seen += size
            for norm in norms.values():
                norm.momentum = size / seen
            functional_call(network, {**(params or {}), **buffers}, (images,))
    return buffers


@contextmanager
def _momenta(norms: list[_BatchNorm]) -> Iterator[None]:
    before = [norm.momentum for norm in norms]
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


def _forget(buffers: dict[str, Tensor], norms: Mapping[str, _BatchNorm]) -> None:
    """Zero times NaN is NaN: the first batch must not meet statistics that went wrong."""
    for name in norms:
        for key in ("running_mean", "running_var", "num_batches_tracked"):
            buffer = buffers.get(f"{name}.{key}" if name else key)
            if buffer is not None:
                buffer.zero_()
