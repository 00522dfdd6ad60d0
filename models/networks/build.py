"""From a spec to a network: the one way in which the product makes one."""

import inspect
from typing import Any

from torch import nn

from autosparse.models import seeding
from autosparse.models.errors import not_allowed
from autosparse.models.networks.initialization import initialize
from autosparse.models.networks.registry import Builder, find_builder
from autosparse.models.specs.run_specs import NetworkSpec


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
