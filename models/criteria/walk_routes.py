"""How the prunable layers of a network follow each other, read off their names and channel counts."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from autosparse.models.errors import not_allowed
from autosparse.models.masks.prunable import TRANSPOSED


class Layer(NamedTuple):
    """A prunable layer as a walk sees it: so many channels in and out; of groups, each output sees `fan` inputs."""

    name: str  # of the weight
    inputs: int
    outputs: int
    fan: int
    linear: bool

    def columns(self) -> Tensor:
        """Input channel of each kernel, int64 of shape (outputs, fan)."""
        group = torch.arange(self.outputs) // (self.outputs * self.fan // self.inputs)
        return group[:, None] * self.fan + torch.arange(self.fan)


Branch = tuple[Layer, ...]
Route = list[tuple[Branch, ...]]  # segments one after the other, each with the branches that a walk may take through it


def route_of(network: nn.Module, names: list[str]) -> Route:
    """All layers of these weights, in the order of `names`, as segments.

    Two layers are joined where the second takes as many channels as the first gives; a linear layer may take a multiple, the
    flattened images of the channels. Where a layer does not fit the one before it, but takes what the first layer of the module
    that holds both takes, and gives what the layers since then end with, it is a shortcut around them, and a walk goes by
    one of the two with equal probability (the authors' code does the same for its ResNets, by layer number). Shortcuts that are
    the identity need no layer. What fits in neither way follows the layer before it, and walks enter it at a channel
    drawn at random: a shortcut around another fork, the parallel branches of an Inception. A shortcut that takes as many
    channels as the layer before it gives cannot be told from a link of the chain and is taken for one.
    Raises SpecError for transposed convolutions.
    """
    route: Route = []
    for name in names:
        layer = _layer(network, name)
        begin = None if not route or _joined(route[-1][0][-1], layer) else _fork(route, layer)
        if begin is None:
            route.append(((layer,),))
        elif begin == len(route) - 1:
            route[-1] = (*route[-1], (layer,))
        else:
            route[begin:] = [(tuple(segment[0][0] for segment in route[begin:]), (layer,))]
    return route


def _layer(network: nn.Module, name: str) -> Layer:
    owner, reparametrized, _ = name.partition("parametrizations.")
    module = network.get_submodule(owner.rstrip(".") if reparametrized else name.rpartition(".")[0])
    weight = network.get_parameter(name)
    if isinstance(module, TRANSPOSED) or weight.dim() < 2:
        raise not_allowed("network", f"{type(module).__name__} {name}", "layers whose weights are (outputs, inputs, ...) for random walks")
    fan = weight.shape[1]
    return Layer(name, fan * int(getattr(module, "groups", 1)), weight.shape[0], fan, weight.dim() == 2)


def _joined(before: Layer, after: Layer) -> bool:
    return after.inputs == before.outputs or (after.linear and after.inputs % before.outputs == 0)


def _fork(route: Route, layer: Layer) -> int | None:
    """Index of the segment where the way around which `layer` leads begins; None where it does not lead around anything."""
    last = route[-1][0][-1]
    shared = 0
    parts, others = layer.name.split("."), last.name.split(".")
    while parts[shared] == others[shared]:
        shared += 1
    heads = [segment[0][0] for segment in route]
    begin = next(index for index, head in enumerate(heads) if head.name.split(".")[:shared] == parts[:shared])
    nested = begin < len(route) - 1 and any(sum(map(len, segment)) > 1 for segment in route[begin:])
    fits = heads[begin].inputs == layer.inputs and last.outputs == layer.outputs
    return begin if fits and not nested else None
