"""Networks that start closed where signals should pass: what is closed, and how they are scored all the same.

A head, a norm's scale or a layer scale that is zero, or as good as zero, at initialization (torchvision's ViT, zero-init residual blocks,
1e-6 in ConvNeXt) lets hardly any gradient through: the weights behind it would score next to nothing, and where it is exactly zero the
order of the weights alone would decide.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from autosparse.models import seeding
from autosparse.models.masks.prunable import prunable

FAINT = 1e-3  # a scale that starts from here down is as good as closed


def asleep(network: nn.Module) -> list[str]:
    """Names of prunable weights that are all zero, and of scales of norms and layers of at most FAINT; biases and tokens may be."""
    weights = prunable(network)
    found = []
    for name, param in network.named_parameters():
        scale = param.dim() and param.shape[0] == param.numel() and "bias" not in name.rsplit(".", 1)[-1]
        closed = (name in weights and not param.detach().any()) or (scale and bool((param.detach().abs() <= FAINT).all()))
        if closed and param.numel():
            found.append(name)
    return found


@contextmanager
def awake(network: nn.Module) -> Iterator[list[str]]:
    """Inside, what is `asleep` is not: weights are drawn as torch draws those of linear layers (always the same ones), scales are 1.

    Gives the names. The network's own values are back afterwards.
    """
    names, weights = asleep(network), prunable(network)
    params = dict(network.named_parameters())
    before = {name: params[name].detach().clone() for name in names}
    try:
        with torch.no_grad():
            for name in names:
                if name in weights:
                    bound = (params[name].numel() / params[name].shape[0]) ** -0.5
                    drawn = torch.rand(params[name].shape, generator=seeding.generator(0, "awake", name))
                    params[name].copy_((2 * drawn - 1) * bound)
                else:
                    params[name].fill_(1)
        yield names
    finally:
        with torch.no_grad():
            for name, value in before.items():
                params[name].copy_(value)
