"""One look at how an image goes through a network, which stays as it was."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from autosparse.models.networks.calls import Shape, blank, call


@torch.no_grad()
def look_through(network: nn.Module, shape: Shape, hooks: Sequence[RemovableHandle]) -> None:
    """One forward pass of a black image of this shape, or of the inputs themselves, in eval mode, seen by `hooks`.

    Afterwards the hooks are taken off and every module is in the mode it was in, whether the pass went well or not.
    """
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        call(network, blank(shape, network))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes:
            module.training = mode
