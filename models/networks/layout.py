"""The memory layout of images: channels-last where a network takes it, contiguous where it does not."""

from typing import Any

import torch
from torch import Tensor, nn

CONTIGUOUS = "_autosparse_contiguous"  # the attribute of a network that takes nothing else; deepcopy takes it along


def prefer_layout(network: nn.Module, image: Tensor) -> None:
    """Find out by one pass whether the network takes channels-last weights and images (n, channels, height, width).

    One that does not, because it flattens with `view`, is given contiguous images from now on, by a hook.
    """
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.no_grad():
            network(image.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2))  # strides as the product's images have them
    except RuntimeError:
        network.__dict__[CONTIGUOUS] = True
        network.register_forward_pre_hook(_contiguous)
    finally:
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        for module, mode in modes:
            module.training = mode


def memory_format(network: nn.Module, *, channels_last: bool) -> torch.memory_format:
    """The format for weights and images of the network, where `channels_last` is asked for."""
    return torch.channels_last if channels_last and not network.__dict__.get(CONTIGUOUS) else torch.contiguous_format


def _contiguous(network: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    # Cloned, because an image of one channel calls itself contiguous whatever its strides are, and convolutions go by those.
    return tuple(one.clone(memory_format=torch.contiguous_format) if isinstance(one, Tensor) else one for one in inputs)
