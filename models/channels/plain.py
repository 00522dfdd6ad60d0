"""A plain copy of a network: without wrappers, and with weights instead of what makes weights."""

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm

from autosparse.models.masks.prunable import CHOICE, Choice
from autosparse.models.masks.reparametrized import copied
from autosparse.models.networks.wrappers import plain


def plain_copy(network: nn.Module) -> tuple[nn.Module, dict[str, str]]:
    """The copy, and where a weight of it has another name in `network`: {name there: name in the copy}.

    Parametrizations (weight_norm old and new, spectral_norm, torch.nn.utils.prune) become the weights that they make; the other name is
    that of the parameter of the same shape that it is made of.
    """
    copy = copied(plain(network))
    renamed: dict[str, str] = {}
    for name, module in copy.named_modules():
        before = dict(module.named_parameters())
        for tensor in _remade(module):
            now = dict(module.named_parameters())
            made_of = [part for part in before if part not in now and before[part].shape == now[tensor].shape]
            renamed |= {f"{name}.{part}".lstrip("."): f"{name}.{tensor}".lstrip(".") for part in made_of}
            before = now
    choice: Choice | None = copy.__dict__.get(CHOICE)
    if choice is not None:
        names, head = [renamed.get(name, name) for name in choice.names], renamed.get(choice.head or "", choice.head)
        copy.__dict__[CHOICE] = choice._replace(names=tuple(names), head=head)
    return copy, renamed


def _remade(module: Any) -> Iterator[str]:
    """Make plain what is reparametrized in this module; yields the names one after the other."""
    if parametrize.is_parametrized(module):
        made = {tensor: getattr(module, tensor).detach().clone() for tensor in module.parametrizations}
        trained = {tensor: any(param.requires_grad for param in module.parametrizations[tensor].parameters()) for tensor in made}
        kind = parametrize.type_before_parametrizations(module)  # torch's own way back changes a class that the original has too
        del module.parametrizations
        module.__class__ = kind
        for tensor, value in made.items():
            module.register_parameter(tensor, nn.Parameter(value, requires_grad=trained[tensor]))
            yield tensor
    for hook in list(module._forward_pre_hooks.values()):
        if isinstance(hook, prune.BasePruningMethod):
            prune.remove(module, hook._tensor_name)
            yield hook._tensor_name
        elif type(hook).__name__ == "WeightNorm":
            remove_weight_norm(module, hook.name)
            yield hook.name
        elif type(hook).__name__ == "SpectralNorm":
            remove_spectral_norm(module, hook.name)
            yield hook.name
