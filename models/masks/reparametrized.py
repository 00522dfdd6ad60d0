"""Copies of foreign networks, and the weights that reparametrized layers really use.

A layer under `weight_norm`, `spectral_norm` (old and new) or `torch.nn.utils.prune` computes its weight from parameters of other
names. A mask lies on the parameter of the weight's shape; what counts for a path is the weight itself.
"""

from collections.abc import Iterable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


def copied(network: nn.Module) -> nn.Module:
    """A deep copy, of networks with computed weights too, which `deepcopy` refuses because they are no leaves."""
    computed = [value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    return deepcopy(network, {id(value): value.detach().clone() for value in computed if not value.is_leaf})


def weights(network: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """The weights that the network computes with, detached, under the names of the parameters that a mask lies on."""
    params = dict(network.named_parameters())
    if _is_reparametrized(network):
        params = dict(plain_(copied(network)).named_parameters())
    return {name: params[name].detach() for name in names}


@torch.no_grad()
def plain_(network: nn.Module) -> nn.Module:
    """Let each reparametrized weight be a parameter, in place: the one of its shape and role, under its old name."""
    for module in network.modules():
        for name, parts in getattr(module, "parametrizations", {}).items():
            made = getattr(module, name).clone()
            param = next((part for part in parts.parameters() if part.shape == made.shape), None)
            if param is not None:
                param.copy_(made)
                parts.forward = lambda param=param: param
        for key, hook in list(module._forward_pre_hooks.items()):
            name = _computes(hook)
            if name is not None:
                hook(module, ())
                param = getattr(module, f"{name}_v" if isinstance(hook, WeightNorm) else f"{name}_orig")
                param.copy_(getattr(module, name))
                del module._forward_pre_hooks[key]
                vars(module)[name] = param  # a plain attribute: registered it is under its own name alone
                if isinstance(module, nn.RNNBase):
                    module._flat_weights = [getattr(module, part) for part in module._flat_weights_names]
    return network


def _is_reparametrized(network: nn.Module) -> bool:
    return any(
        parametrize.is_parametrized(module) or any(_computes(hook) for hook in module._forward_pre_hooks.values())
        for module in network.modules()
    )


def _computes(hook: object) -> str | None:
    """Name of the tensor that a forward hook of torch's older reparametrizations computes."""
    if isinstance(hook, (WeightNorm, SpectralNorm)):
        return hook.name
    return hook._tensor_name if isinstance(hook, BasePruningMethod) else None
