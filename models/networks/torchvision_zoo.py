"""The classification networks of torchvision, untrained: `torchvision:NAME`."""

from typing import Any

from torch import nn

from models.errors import not_allowed, unknown_name
from models.networks.torchvision_guard import import_torchvision

# Auxiliary classifiers would make the output of a network in training a tuple.
KEYWORDS: dict[str, dict[str, Any]] = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}


def torchvision_network(name: str, *, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The network `name` of torchvision.models without trained weights, with `num_classes` outputs.

    Its definition and its demands on the size of images (32x32 is too small for some) are torchvision's. For images that do not
    have 3 channels the first convolution is made anew with torch's own init; raises SpecError where it is not clear which one
    that is, and for an unknown name.
    """
    zoo = import_torchvision().models
    names = zoo.list_models(module=zoo)
    if name not in names:
        raise unknown_name("network.name", f"torchvision:{name}", [f"torchvision:{known}" for known in names])
    network = zoo.get_model(name, weights=None, num_classes=num_classes, **KEYWORDS.get(name, {}))
    if image_shape[0] != 3:
        _take_channels(network, image_shape[0], name)
    return network


def _take_channels(network: nn.Module, channels: int, name: str) -> None:
    convolutions = [(path, module) for path, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    on_images = [module for _, module in convolutions if module.in_channels == 3]
    path, first = convolutions[0]
    if len(on_images) != 1 or first is not on_images[0]:
        allowed = f"a network whose only convolution of 3 channels is its first, for images of {channels} channels"
        raise not_allowed("network.name", f"torchvision:{name}", allowed)
    parent, _, child = path.rpartition(".")
    like: dict[str, Any] = {key: getattr(first, key) for key in ("kernel_size", "stride", "padding", "dilation", "padding_mode")}
    made = nn.Conv2d(channels, first.out_channels, bias=first.bias is not None, **like)
    setattr(network.get_submodule(parent), child, made)
