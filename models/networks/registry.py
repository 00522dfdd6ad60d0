"""Network name -> builder: the only door to the definitions. A new network is one definition and one line here."""

from collections.abc import Callable
from functools import partial

from torch import nn

from autosparse.models.errors import unknown_name
from autosparse.models.imported import check_callable, import_object
from autosparse.models.masks.reparametrized import copied
from autosparse.models.networks.hugging_face_zoo import hugging_face_builder
from autosparse.models.networks.lenet import lenet_300_100
from autosparse.models.networks.local_mixer import local_mixer
from autosparse.models.networks.resnet_cifar import resnet_cifar
from autosparse.models.networks.resnet_imagenet import resnet_imagenet
from autosparse.models.networks.row_lstm import row_lstm
from autosparse.models.networks.timm_zoo import timm_network
from autosparse.models.networks.torchvision_zoo import torchvision_network
from autosparse.models.networks.vgg_cifar import vgg_cifar
from autosparse.models.networks.wide_resnet import wide_resnet

# A function of keywords, each given only where its signature names it: `image_shape` (channels, height, width), `num_classes`,
# the fields of the spec that not every family has, `width` and `stem_stride`, and those of the spec's `keywords`.
Builder = Callable[..., nn.Module]

NETWORKS: dict[str, Builder] = {
    "lenet300-100": lenet_300_100,
    "resnet8": partial(resnet_cifar, blocks=1),
    "resnet20": partial(resnet_cifar, blocks=3),
    "resnet32": partial(resnet_cifar, blocks=5),
    "resnet56": partial(resnet_cifar, blocks=9),
    "resnet18": partial(resnet_imagenet, depth=18),
    "resnet34": partial(resnet_imagenet, depth=34),
    "resnet50": partial(resnet_imagenet, depth=50),
    "vgg11": partial(vgg_cifar, depth=11),
    "vgg16": partial(vgg_cifar, depth=16),
    "vgg19": partial(vgg_cifar, depth=19),
    "wideresnet28-10": partial(wide_resnet, depth=28, widening=10),
    "row-lstm": row_lstm,
    "local-mixer": local_mixer,
}

# prefix -> from the rest of a name to a builder: networks of packages, by name
ZOOS: dict[str, Callable[[str], Builder]] = {
    "torchvision": lambda name: partial(torchvision_network, name),
    "timm": lambda name: partial(timm_network, name),
    "hf": hugging_face_builder,
}
FACTORY = "package.module:factory, importable and callable"


def find_builder(name: str) -> Builder:
    """The builder of a registered name, of `torchvision:NAME`, `timm:NAME`, `hf:NAME` or `package.module:factory`. Raises SpecError."""
    if name in NETWORKS:
        return NETWORKS[name]
    zoo, colon, rest = name.partition(":")
    if colon and zoo in ZOOS:
        return ZOOS[zoo](rest)
    if colon:
        factory = import_object("network.name", name, FACTORY)
        if isinstance(factory, nn.Module):  # a network that is there already: each use has a copy of it
            return partial(copied, factory)
        check_callable("network.name", name, factory, FACTORY)
        return factory
    raise unknown_name("network.name", name, NETWORKS)
