"""From a spec to a network: the one way in which the product makes one."""

import inspect
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from autosparse.models import seeding
from autosparse.models.errors import not_allowed, unknown_name
from autosparse.models.masks.prunable import choose
from autosparse.models.networks.calls import Inputs, Shape, call, is_shape, logits_of, twice
from autosparse.models.networks.initialization import initialize
from autosparse.models.networks.layout import prefer_layout
from autosparse.models.networks.registry import NETWORKS, Builder, find_builder
from autosparse.models.networks.trial import guarded, try_forward
from autosparse.models.networks.wrappers import plain
from autosparse.models.specs.run_specs import NetworkSpec

FIELDS: dict[str, Any] = {"width": None, "stem_stride": 1}  # of the spec, with what they are for builders that do not have them


def build_network(
    spec: NetworkSpec,
    *,
    image_shape: Shape,
    num_classes: int | None,
    seed: int,
    tried: bool = True,
    given: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The network of a spec at step 0: float32, on the CPU, in training mode, with one output per class.

    `image_shape` is (channels, height, width), or, for a task of one's own, the inputs of one example as a batch of one; `given` are
    keywords that such a task has for builders. Without `num_classes` the outputs are the loss's matter alone. The same arguments give
    the same bits, and the global generators are as they were before. A network from outside is taken out of its wrappers, run once, and
    keeps what was found out by that: which weights are prunable, in the order of execution, and whether it takes images in channels-last
    order. Not so where `tried` is False, because the images are not known yet.
    Raises SpecError: an unknown name, a field or a keyword that the network does not have, a factory that gives no module, a network that
    does not take such images or has not one output per class.
    """
    builder = find_builder(spec.name)
    images = {"image_shape": image_shape, "num_classes": num_classes} if is_shape(image_shape) else {}
    keywords = _keywords(builder, spec, images | dict(given or {}))
    with seeding.scoped(seed, "init"):
        network = _built(builder, spec, keywords)
        if not isinstance(network, nn.Module):
            raise not_allowed("network.name", spec.name, f"a factory that returns a torch.nn.Module, not {type(network).__name__}")
        if spec.name in NETWORKS:
            initialize(network, spec.init)
            return network
        network = plain(network).float().train()
        inputs = torch.zeros(2, *image_shape) if is_shape(image_shape) else twice(image_shape)
        if tried:
            try_forward(network, inputs)  # lazy layers take their shapes from it
        initialize(network, spec.init)
    if tried:
        _look_at(network, inputs, num_classes)
    return network


def _look_at(network: nn.Module, inputs: Inputs, num_classes: int | None) -> None:
    if num_classes is not None:
        with torch.no_grad():
            shape = tuple(logits_of(call(network.eval(), inputs)).shape)
            network.train()
        if shape != (len(inputs), num_classes):
            raise not_allowed(
                "network", f"outputs of shape {shape} for {len(inputs)} images", f"({len(inputs)}, {num_classes}), one per class"
            )
    choose(network, inputs)
    if isinstance(inputs, Tensor) and inputs.dim() == 4:
        prefer_layout(network, inputs)


def _built(builder: Builder, spec: NetworkSpec, keywords: dict[str, Any]) -> Any:
    """What the builder returns; a keyword of the spec that it stumbles over is named."""

    def act() -> Any:
        try:
            return builder(**keywords)
        except TypeError as error:
            name = next(iter(re.findall(r"unexpected keyword argument '(\w+)'", str(error))), "")
            if name not in spec.keywords:
                raise
            allowed = f"a keyword that {spec.name} takes ({error})"
            raise not_allowed(f"network.keywords.{name}", spec.keywords[name], allowed) from None

    return act() if spec.name in NETWORKS and not spec.keywords else guarded(f"network.name: {spec.name}", act)


def _keywords(builder: Builder, spec: NetworkSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the builder is called with: of `given` what it takes, and the fields and keywords of the spec, all of them or a SpecError."""
    takes, any_ = _parameters(builder)
    # a size of images is refused by timm.create_model and its like, which pass on the rest
    keywords = {name: value for name, value in given.items() if name in takes or (any_ and name != "image_shape")}
    for field, default in FIELDS.items():
        value = getattr(spec, field)
        if value == default:
            continue
        if field not in takes:
            raise not_allowed(f"network.{field}", value, f"{default} for {spec.name}, which does not have this field")
        keywords[field] = value
    others = sorted(takes - given.keys() - FIELDS.keys())
    for name, value in spec.keywords.items():
        if name in given or (name in FIELDS and name in takes):
            raise not_allowed(f"network.keywords.{name}", value, f"network.{name}" if name in FIELDS else "none: it is given by the data")
        if name not in takes and not any_:
            raise unknown_name(f"network.keywords.{name}", name, others or ["none"])
        keywords[name] = value
    try:
        _signature(builder).bind(**keywords)
    except TypeError as error:
        allowed = f"a factory that needs at most {' and '.join(given) or 'nothing'} ({error}), what else it needs in network.keywords"
        raise not_allowed("network.name", spec.name, allowed) from None
    return keywords


def _parameters(builder: Builder) -> tuple[set[str], bool]:
    """The names that a builder takes, and whether it takes any other."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    kinds = {name: parameter.kind for name, parameter in _signature(builder).parameters.items()}
    return {name for name, kind in kinds.items() if kind in by_name}, inspect.Parameter.VAR_KEYWORD in kinds.values()


def _signature(builder: Builder) -> inspect.Signature:
    try:
        return inspect.signature(builder)
    except ValueError:  # some callables written in C have none
        return inspect.Signature()
