"""The networks of timm, untrained: `timm:NAME`."""

from typing import Any

from torch import nn

from autosparse.models.errors import unknown_name
from autosparse.models.networks.zoo_guard import check_ours, import_zoo

OURS = ("pretrained", "num_classes", "in_chans")
SIZE = "img_size"


def timm_network(name: str, *, image_shape: tuple[int, int, int], num_classes: int, **keywords: Any) -> nn.Module:
    """The network `name` of timm without trained weights, for such images, with `num_classes` outputs; `keywords` go to its definition.

    `img_size` is given where timm says that the network is built for one size of images. Raises SpecError for an unknown name and for
    keywords that are given here.
    """
    asked = f"timm:{name}"
    timm = import_zoo("timm", "timm", asked)
    if not timm.is_model(name):
        raise unknown_name("network.name", asked, [f"timm:{known}" for known in timm.list_models()])
    card = timm.models.get_pretrained_cfg(name)
    sized = {SIZE: tuple(image_shape[1:])} if card and card.fixed_input_size else {}
    check_ours(keywords, (*OURS, *sized))
    return timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=image_shape[0], **sized, **keywords)
