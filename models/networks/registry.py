"""Network name -> builder: the only door to the definitions. A new network is one definition and one line here."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from models import seeding
from models.errors import not_allowed, unknown_name
from models.networks.imported import import_factory
from models.networks.initialization import initialize
from models.networks.lenet import lenet_300_100
from models.networks.local_mixer import local_mixer
from models.networks.resnet_cifar import resnet_cifar
from models.networks.resnet_imagenet import resnet_imagenet
from models.networks.row_lstm import row_lstm
from models.networks.torchvision_zoo import torchvision_network
from models.networks.vgg_cifar import vgg_cifar
from models.networks.wide_resnet import wide_resnet
from models.specs import NetworkSpec

# A function of keywords, each given only where its signature names it: `image_shape` (channels, height, width), `num_classes`,
# and the fields of the spec that not every family has, `width` and `stem_stride`.
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

TORCHVISION = "torchvision:"


def build_network(spec: NetworkSpec, *, image_shape: tuple[int, int, int], num_classes: int, seed: int) -> nn.Module:
    """The network of a spec at step 0: float32, on the CPU, in training mode, with one output per class.

    `image_shape` is (channels, height, width). The same arguments give the same bits, and the global generator of torch is as it
    was before. Raises SpecError: an unknown name, a field that the network does not have, a factory that gives no module.
    """
    builder = find_builder(spec.name)
    keywords = _keywords(builder, spec, {"image_shape": image_shape, "num_classes": num_classes})
    with seeding.scoped(seed, "init"):
        network = builder(**keywords)
        if not isinstance(network, nn.Module):
            raise not_allowed("network.name", spec.name, f"a factory that returns a torch.nn.Module, not {type(network).__name__}")
        initialize(network, spec.init)
    return network


def find_builder(name: str) -> Builder:
    """The builder of a registered name, of `torchvision:NAME` or of `package.module:factory`. Raises SpecError."""
    if name in NETWORKS:
        return NETWORKS[name]
    if name.startswith(TORCHVISION):
        return partial(torchvision_network, name.removeprefix(TORCHVISION))
    if ":" in name:
        return import_factory(name)
    raise unknown_name("network.name", name, NETWORKS)


def _keywords(builder: Builder, spec: NetworkSpec, given: dict[str, Any]) -> dict[str, Any]:
    try:
        signature = inspect.signature(builder)
    except ValueError:  # some callables written in C have none
        signature = inspect.Signature()
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    takes = {name for name, parameter in signature.parameters.items() if parameter.kind in by_name}
    keywords = {name: value for name, value in given.items() if name in takes}
    for field, default in (("width", None), ("stem_stride", 1)):
        value = getattr(spec, field)
        if value == default:
            continue
        if field not in takes:
            raise not_allowed(f"network.{field}", value, f"{default} for {spec.name}, which does not have this field")
        keywords[field] = value
    try:
        signature.bind(**keywords)
    except TypeError as error:
        raise not_allowed("network.name", spec.name, f"a factory that needs at most {' and '.join(given)} ({error})") from None
    return keywords
