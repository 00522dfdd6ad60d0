"""Networks that start with zeros where signals should pass: what is zero, and how they are scored all the same.

A head, a layer scale or a norm's scale that is zero at initialization (torchvision's ViT, zero-init residual blocks) lets no gradient
through: every weight behind it would score 0, and the order of the weights alone would decide.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from autosparse.models import seeding
from autosparse.models.masks.prunable import prunable


def asleep(network: nn.Module) -> list[str]:
    """The names of prunable weights, norm scales and layer scales that are zero everywhere; biases and tokens may be."""
    weights = prunable(network)
    found = []
    for name, param in network.named_parameters():
        scale = param.dim() and param.shape[0] == param.numel() and "bias" not in name.rsplit(".", 1)[-1]
        if (name in weights or scale) and param.numel() and not bool(param.detach().any()):
            found.append(name)
    return found


@contextmanager
def awake(network: nn.Module) -> Iterator[list[str]]:
    """Inside, what is `asleep` is not: weights are drawn as torch draws those of linear layers (always the same ones), scales are 1.

    Gives the names. The zeros are back afterwards.
    """
    names, weights = asleep(network), prunable(network)
    params = dict(network.named_parameters())
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
            for name in names:
                params[name].zero_()
