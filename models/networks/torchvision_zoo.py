"""The classification networks of torchvision, untrained: `torchvision:NAME`."""

from typing import Any

from torch import nn

from autosparse.models.errors import not_allowed, unknown_name
from autosparse.models.networks.zoo_guard import check_ours, import_zoo

# Auxiliary classifiers would make the output of a network in training a tuple.
KEYWORDS: dict[str, dict[str, Any]] = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}
OURS = ("weights", "num_classes")


def torchvision_network(name: str, *, image_shape: tuple[int, int, int], num_classes: int, **keywords: Any) -> nn.Module:
    """The network `name` of torchvision.models without trained weights, with `num_classes` outputs; `keywords` go to its definition.

    Its definition and its demands on the size of images (32x32 is too small for some) are torchvision's. For images that do not
    have 3 channels the first convolution is made anew with torch's own init; raises SpecError where it is not clear which one
    that is, for an unknown name and for keywords that are given here.
    """
    zoo = import_zoo("torchvision", "pipeline", f"torchvision:{name}").models
    names = zoo.list_models(module=zoo)
    if name not in names:
        raise unknown_name("network.name", f"torchvision:{name}", [f"torchvision:{known}" for known in names])
    check_ours(keywords, OURS)
    network = zoo.get_model(name, weights=None, num_classes=num_classes, **KEYWORDS.get(name, {}) | keywords)
    if image_shape[0] != 3:
        take_channels(network, image_shape[0], name)
    return network


def take_channels(network: nn.Module, channels: int, name: str) -> None:
    """Replace the convolution that takes RGB images by one for `channels`, in place. Raises SpecError unless there is exactly one."""
    found = [path for path, module in network.named_modules() if isinstance(module, nn.Conv2d) and module.in_channels == 3]
    if len(found) != 1:
        allowed = f"a network with exactly one convolution of 3 input channels, not {len(found)}, for images of {channels} channels"
        raise not_allowed("network.name", f"torchvision:{name}", allowed)
    (path,) = found
    rgb: Any = network.get_submodule(path)
    like = {key: getattr(rgb, key) for key in ("kernel_size", "stride", "padding", "dilation", "padding_mode")}
    network.set_submodule(path, nn.Conv2d(channels, rgb.out_channels, bias=rgb.bias is not None, **like))
