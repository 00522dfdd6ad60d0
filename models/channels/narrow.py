"""The baseline of everything that removes channels: the same architecture, dense and uniformly narrower."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from autosparse.models import seeding
from autosparse.models.channels.cut import cut
from autosparse.models.channels.dead import Dead
from autosparse.models.channels.examples import example_of
from autosparse.models.channels.units import costs_by_weight, price, units_of
from autosparse.models.channels.widths import affordable, order_within
from autosparse.models.errors import CollapseError
from autosparse.models.masks.mask import prunable
from autosparse.models.networks.build import build_network
from autosparse.models.networks.calls import Shape
from autosparse.models.networks.flops import forward_macs
from autosparse.models.networks.initialization import initialize
from autosparse.models.networks.registry import find_builder
from autosparse.models.specs.grain import Cost
from autosparse.models.specs.run_specs import NetworkSpec

WIDTH = "width"
MOST_ABOVE = 1.5  # what the narrowest network may cost, in multiples of what is wanted


def narrow_network(
    spec: NetworkSpec,
    share: float,
    cost: Cost,
    *,
    image_shape: Shape,
    num_classes: int | None,
    seed: int,
    given: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The network of this architecture that costs `share` of that of `spec`, at step 0, as `build_network` makes it.

    Where the builder takes a `width` it is the one whose cost is nearest, by ratio; elsewhere the first channels of each layer are left,
    all layers by one share (models/channels/widths.py). Weights are drawn anew for the narrower layers; where the definition draws its own
    they are those of the first channels times sqrt(inputs before / inputs now), so that the outputs of a layer keep their variance.
    Raises CollapseError where the narrowest network costs more (of a `width`, MOST_ABOVE times as much).
    """

    def built(width: int | None) -> nn.Module:
        return build_network(replace(spec, width=width), image_shape=image_shape, num_classes=num_classes, seed=seed, given=given)

    whole = built(spec.width)
    widest = spec.width or _usual_width(spec)
    if widest is None:
        return _first_channels(whole, spec, share, cost, image_shape, seed)
    whole_cost = _cost(whole, spec, cost, image_shape)
    wanted = share * whole_cost
    low, high = 1, widest  # the widest that costs at most what is wanted, if there is one
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _cost(built(middle), spec, cost, image_shape) <= wanted else (low, middle - 1)
    if (least := _cost(built(1), spec, cost, image_shape)) > MOST_ABOVE * wanted:
        raise CollapseError(
            f"density: {share:g} is not allowed; allowed: at least {least / whole_cost:.2g}, that of {spec.name} of width 1"
        )
    nearest = min((low, min(low + 1, widest)), key=lambda width: abs(math.log(_cost(built(width), spec, cost, image_shape) / wanted)))
    return built(nearest)


def _usual_width(spec: NetworkSpec) -> int | None:
    """The width of a builder that takes one, None of others."""
    parameter = inspect.signature(find_builder(spec.name)).parameters.get(WIDTH)
    return parameter.default if parameter and isinstance(parameter.default, int) else None


def _cost(network: nn.Module, spec: NetworkSpec, cost: Cost, image_shape: Shape) -> float:
    return sum(costs_by_weight(forward_macs(network, image_shape), network, cost, head=spec.prune_head).values())


def _first_channels(network: nn.Module, spec: NetworkSpec, share: float, cost: Cost, image_shape: Shape, seed: int) -> nn.Module:
    units = units_of(network, example_of(image_shape))
    order = order_within(units, -torch.arange(len(units.group), dtype=torch.float64), [1.0] * len(units.layers))
    whole = costs_by_weight(forward_macs(network, image_shape), network, cost, head=spec.prune_head)
    stays = affordable(units, order, lambda some: price(units, whole, some), share)
    inputs = {name: weight[0].numel() for name, weight in prunable(network).items() if weight.dim() > 1}
    cut(network, Dead(units.ledger, units.removed(stays)))
    if spec.init != "own":
        with seeding.scoped(seed, "init"):
            initialize(network, spec.init)
        return network
    with torch.no_grad():
        for name, weight in prunable(network).items():
            if name in inputs:
                weight *= (inputs[name] / weight[0].numel()) ** 0.5
    return network
