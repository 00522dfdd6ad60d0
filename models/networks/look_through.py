"""One look at how an image goes through a network, which stays as it was."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


@torch.no_grad()
def look_through(network: nn.Module, image_shape: Sequence[int], hooks: Sequence[RemovableHandle]) -> None:
    """One forward pass of a black image of `image_shape` (channels, height, width) in eval mode, seen by `hooks`.

    Afterwards the hooks are taken off and every module is in the mode it was in, whether the pass went well or not.
    """
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        network(torch.zeros(1, *image_shape, device=next(network.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes:
            module.training = mode
