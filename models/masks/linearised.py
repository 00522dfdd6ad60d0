"""A network through which an input of ones stays positive: what flow and paths are measured on."""

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from autosparse.models.masks.arithmetic import CLOSED
from autosparse.models.masks.flowing import Flow
from autosparse.models.masks.mask import prunable
from autosparse.models.masks.reparametrized import copied, plain_
from autosparse.models.masks.rules import Rules
from autosparse.models.networks.calls import Inputs, call, mapped, one_of, tensors_in


def linearised(network: nn.Module) -> nn.Module:
    """A float64 copy whose parameters and buffers are absolute values, in eval mode, so that an input of ones stays positive.

    BatchNorm thereby acts by its running statistics; at initialization (mean 0, variance 1) it is the identity up to its eps.
    Only prunable weights ask for a gradient. Reparametrized weights are the parameters that make them (`plain_`). What is zero at
    initialization and lets nothing through counts as open: the scale of a BatchNorm is 1, a prunable layer has the constant
    weight of `opened`. Constants that close (-inf, -100 in the mask of an attention) keep their sign.
    """
    linear = plain_(copied(network)).double().eval().requires_grad_(False)
    norms = {id(tensor) for norm in linear.modules() if isinstance(norm, _BatchNorm) for tensor in norm.buffers()}
    with torch.no_grad():
        for tensor in (*linear.parameters(), *linear.buffers()):
            if tensor.is_floating_point():
                signed = isinstance(tensor, nn.Parameter) or id(tensor) in norms
                tensor.copy_(tensor.abs() if signed else torch.where(tensor > CLOSED, tensor.abs(), tensor))
        for norm in linear.modules():
            if isinstance(norm, _BatchNorm) and norm.affine and not norm.weight.any():
                norm.weight.fill_(1)
        for param in prunable(linear).values():
            param.copy_(opened(param)).requires_grad_()
    return linear


def opened(weight: Tensor) -> Tensor:
    """The weight, or where all of it is zero, as in a head that starts at zero, 1 / sqrt(inputs) everywhere."""
    return weight if weight.any() else torch.full_like(weight, 1 / math.sqrt(max(weight[0].numel(), 1)))


def ones_for(inputs: Inputs) -> Inputs:
    """One example of ones in float64 in the place of `inputs`; indices stay what they are."""
    return mapped(lambda tensor: torch.ones_like(tensor, dtype=torch.float64) if tensor.is_floating_point() else tensor, one_of(inputs))


def pass_through(linear: nn.Module, inputs: Inputs, rules: Rules) -> Tensor:
    """The sum of what the network puts out for `inputs` under the rules, with its graph; several outputs (auxiliary heads) count alike."""
    with torch.enable_grad(), rules:
        totals = [part.sum() for part in tensors_in(call(linear, inputs)) if part.is_floating_point()]
    if len(totals) == 1:
        return totals[0]
    return torch.stack([part / part.detach() for part in totals if part.detach() > 0]).sum()


def settled(linear: nn.Module, inputs: Inputs) -> Flow:
    """The rules of flow for this linearised network, after a look at it.

    Auxiliary heads, which run in training alone, run from now on: what holds them is put into training mode, they are not.
    """
    rules = Flow(look=True)
    weights = {name: param for name, param in linear.named_parameters() if param.requires_grad}
    idle = _idle(weights, pass_through(linear, inputs, rules))
    busy = weights.keys() - idle
    holders = [
        module
        for prefix, module in linear.named_modules()
        if all(any(name.startswith(f"{prefix}.".lstrip(".")) for name in names) for names in (idle, busy))
    ]
    for module in holders:
        module.training = True
    try:
        woken = bool(holders) and len(_idle(weights, pass_through(linear, inputs, rules))) < len(idle)
    except Exception:  # anything a foreign forward may raise: in training some ask for more than an input
        woken = False
    for module in holders:
        module.training = woken
    return Flow(recurrent=rules.recurrent)


def _idle(params: dict[str, nn.Parameter], total: Tensor) -> list[str]:
    """Those that the total does not hang on."""
    if not total.requires_grad:
        return list(params)
    slopes = torch.autograd.grad(total, list(params.values()), allow_unused=True)
    return [name for name, slope in zip(params, slopes, strict=True) if slope is None]
