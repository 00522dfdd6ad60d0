"""Derivatives of the loss at the current weights, averaged over batches, without leaving a trace in the network.

The network runs on its own weights but on copies of its buffers. BatchNorm uses batch statistics; everything else is in
eval mode, so that dropout draws nothing and two passes over a batch see the same function.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from autosparse.models.errors import not_allowed
from autosparse.models.masks.mask import Mask
from autosparse.models.networks.calls import loss_of

Batches = Sequence[Any]  # (inputs, labels), or what else `models/networks/calls.py` knows
LookAhead = Callable[[nn.Module, Mask | None], nn.Module]
OwnLoss = Callable[[nn.Module, Any], Tensor]  # network and batch -> the batch's mean loss


class ScoringBatches(list[Any]):
    """Batches, most often of images and labels.

    For methods that look ahead, `look_ahead`: network and the mask to train it under (None = dense) -> a copy of it after a short
    training. `loss`: a loss of one's own, in the place of cross entropy.
    """

    look_ahead: LookAhead | None = None
    loss: OwnLoss | None = None


Loss = Callable[[Tensor, Tensor], Tensor]


def mean_gradients(network: nn.Module, batches: Batches, params: Mapping[str, Tensor], *, loss: Loss = cross_entropy) -> dict[str, Tensor]:
    """Mean over batches of dL/dw, L being each batch's mean loss; every batch counts the same, in the weights' own precision.

    `params` holds weights of the network by parameter name. Raises SpecError without a batch.
    """

    def gradient(value: Tensor, leaves: list[Tensor]) -> Sequence[Tensor]:
        return torch.autograd.grad(value, leaves, materialize_grads=True)

    return _mean(network, batches, params, loss, gradient)


def mean_hessian_products(
    network: nn.Module,
    batches: Batches,
    params: Mapping[str, Tensor],
    vectors: Mapping[str, Tensor],
    *,
    loss: Loss = cross_entropy,
) -> dict[str, Tensor]:
    """H v with H the Hessian of the mean loss over batches with respect to `params`, by double backward (Pearlmutter 1994).

    H = 1/K sum_k H_k is linear in the batches, so the mean of the per-batch products d(v . g_k)/dw, with v held fixed, is
    H v exactly, and only one batch's graph is in memory at a time. Raises SpecError without a batch.
    """

    def product(value: Tensor, leaves: list[Tensor]) -> Sequence[Tensor]:
        slopes = torch.autograd.grad(value, leaves, create_graph=True, materialize_grads=True)
        along = torch.stack([(slope * vectors[name]).sum() for name, slope in zip(params, slopes, strict=True)]).sum()
        return torch.autograd.grad(along, leaves, materialize_grads=True)

    with _twice_differentiable(network):
        return _mean(network, batches, params, loss, product)


@contextmanager
def _twice_differentiable(network: nn.Module) -> Iterator[None]:
    """Without the fused kernels of attention and of cuDNN's recurrent layers, which have no second derivative."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in network.modules())
    with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext():
        yield


def _mean(
    network: nn.Module,
    batches: Batches,
    params: Mapping[str, Tensor],
    loss: Loss,
    derivative: Callable[[Tensor, list[Tensor]], Sequence[Tensor]],
) -> dict[str, Tensor]:
    if not batches:
        raise not_allowed("batches", len(batches), ">= 1")
    # Detached leaves share the weights' memory, keep `.grad` and `requires_grad` of the network out of it.
    leaves = {name: param.detach().requires_grad_() for name, param in params.items()}
    state = {f"network.{name}": tensor for name, tensor in leaves.items()}
    state |= {f"network.{name}": buffer.clone() for name, buffer in network.named_buffers()}
    objective = _Objective(network, getattr(batches, "loss", None), loss)
    totals = [torch.zeros_like(leaf, requires_grad=False) for leaf in leaves.values()]
    with batch_statistics(network), torch.enable_grad():
        for batch in batches:
            value = functional_call(objective, state, (batch,))
            for total, part in zip(totals, derivative(value, list(leaves.values())), strict=True):
                total += part
    return {name: total / len(batches) for name, total in zip(leaves, totals, strict=True)}


class _Objective(nn.Module):
    """A network with its loss, as a module, so that `functional_call` puts other weights into a loss of one's own as well."""

    def __init__(self, network: nn.Module, own: OwnLoss | None, loss: Loss) -> None:
        super().__init__()
        self.network, self.own, self.loss = network, own, loss

    def forward(self, batch: Any) -> Tensor:
        return self.own(self.network, batch) if self.own else loss_of(self.network, batch, self.loss)


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Inside, BatchNorm is in train mode and everything else in eval mode.

    Recurrent layers are in train mode without dropout, because cuDNN has no way back through them in eval mode.
    """
    modes = [(module, module.training) for module in network.modules()]
    drops = [(module, module.dropout) for module, _ in modes if isinstance(module, nn.RNNBase)]
    try:
        for module, _ in modes:
            module.training = isinstance(module, _BatchNorm | nn.RNNBase)
        for module, _ in drops:
            module.dropout = 0.0
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for module, drop in drops:
            module.dropout = drop
