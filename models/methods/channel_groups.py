"""Which channels of a network belong together, so that one gate may stand for them and be removed without a trace.

The forward function is traced (torch.fx). A group is what one or more layers write, through their BatchNorms, into the same
channels, and the layers that read them. Additions tie: all that is added into one residual stream is one group.
"""

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from autosparse.models.errors import SpecError, not_allowed
from autosparse.models.masks.mask import CONVOLUTIONS
from autosparse.models.methods.contract import Setup
from autosparse.models.networks.initialization import BATCH_NORMS

# A channel of zeros stays one of zeros in all of these, and no channel moves.
QUIET_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.ELU, nn.Identity),
    *(nn.Dropout, nn.Dropout2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)
QUIET_FUNCTIONS = {
    *(torch.relu, functional.relu, functional.relu6, functional.leaky_relu, functional.gelu, functional.silu, torch.tanh),
    *(functional.dropout, functional.max_pool2d, functional.avg_pool2d, functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d),
    *("relu", "relu_", "tanh", "contiguous"),
}
ADDITIONS = {operator.add, operator.iadd, torch.add, "add", "add_"}
FLATTENINGS, MEANS = {torch.flatten, "flatten"}, {torch.mean, "mean"}


@dataclass(frozen=True)
class Site:
    """A layer that writes a group, and the BatchNorm behind it, where there is one: names of modules."""

    layer: str
    norm: str | None


@dataclass(frozen=True)
class ChannelGroup:
    """`size` channels with the layers that write and read them. A reader has `size` inputs, or a multiple after flattening."""

    size: int
    sites: tuple[Site, ...]
    readers: tuple[str, ...]

    @property
    def tied(self) -> bool:
        """Whether several layers write it, as in a residual stream."""
        return len(self.sites) > 1


def channel_groups(network: nn.Module, *, tied: bool = True) -> list[ChannelGroup]:
    """The groups that can be scaled by a factor per channel where they are written, and removed where that is 0.

    In the order of their first layer; with `tied` False only those that one layer writes alone. Left out: the inputs and outputs of
    the network, channels of grouped convolutions, of layers used twice and of functions not known here, and residual streams
    that a BatchNorm reads (preactivation), which would make a constant of a zero. Raises SpecError when there are none.
    """
    try:
        graph = fx.Tracer().trace(network)
    except Exception as error:  # whatever the forward function of a foreign network does with a stand-in for a tensor
        raise not_allowed("network", type(network).__name__, f"a network that torch.fx can trace ({type(error).__name__})") from None
    walk = _Walk(network)
    for node in graph.nodes:
        walk.visit(node)
    groups = [group for group in walk.groups() if tied or not group.tied]
    if not groups:
        raise not_allowed("network", type(network).__name__, "a network with channels that can be removed")
    return groups


def no_channels(setup: Setup, settings: Any) -> str | None:
    """What `channel_groups` would raise for the network under settings that have `tied`, for `Method.refuses`."""
    try:
        channel_groups(setup.network, tied=settings.tied)
    except SpecError as error:
        return str(error)
    return None


@dataclass(eq=False)
class _Space:
    """Channels under one name while the graph is walked; `into` is where they went when they were tied to others."""

    size: int
    closed: bool = False
    layers: list[tuple[str, fx.Node]] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    norms: list[tuple[str, fx.Node]] = field(default_factory=list)
    into: "_Space | None" = None


class _Walk:
    def __init__(self, network: nn.Module) -> None:
        self._modules = dict(network.named_modules())
        self._order = {name: index for index, name in enumerate(self._modules)}
        self._spaces: list[_Space] = []
        self._of: dict[fx.Node, _Space] = {}
        self._used: set[str] = set()

    def visit(self, node: fx.Node) -> None:
        first = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        module = self._modules[str(node.target)] if node.op == "call_module" else None
        if module is not None and isinstance(module, (*CONVOLUTIONS, nn.Linear)) and first:
            self._layer(node, first, module)
        elif self._adds(node):
            self._of[node] = self._tie(self._space(node.args[0]), self._space(node.args[1]))
        elif first and len(node.all_input_nodes) == 1 and self._keeps(node, module):
            self._of[node] = self._space(first)
            if isinstance(module, BATCH_NORMS):
                self._once(node)
                self._space(first).norms.append((str(node.target), first))
        else:
            for source in node.all_input_nodes:
                self._space(source).closed = True
            self._of[node] = self._new(0, closed=True)

    def groups(self) -> list[ChannelGroup]:
        found = [self._group(space) for space in self._spaces if space.into is None and not space.closed and space.readers]
        return sorted((group for group in found if group), key=lambda group: self._order[group.sites[0].layer])

    def _group(self, space: _Space) -> ChannelGroup | None:
        behind = {source: name for name, source in space.norms}
        nodes = {node for _, node in space.layers}
        if len(behind) < len(space.norms) or any(source not in nodes or len(source.users) > 1 for source in behind):
            return None
        sites = sorted((Site(name, behind.get(node)) for name, node in space.layers), key=lambda site: self._order[site.layer])
        return ChannelGroup(space.size, tuple(sites), tuple(space.readers))

    def _layer(self, node: fx.Node, source: fx.Node, module: Any) -> None:
        linear = isinstance(module, nn.Linear)
        inputs, outputs = (module.in_features, module.out_features) if linear else (module.in_channels, module.out_channels)
        space = self._space(source)
        space.readers.append(str(node.target))
        new = self._of[node] = self._new(outputs)
        new.layers.append((str(node.target), node))
        if not linear and module.groups > 1:
            space.closed = new.closed = True
        if not space.closed and inputs % space.size:
            space.closed = True
        self._once(node)

    def _once(self, node: fx.Node) -> None:
        """A layer that is used twice has one set of channels in two places: nothing of it is touched."""
        if str(node.target) in self._used:
            for other, space in self._of.items():
                if other.target == node.target:
                    self._root(space).closed = True
                    for source in other.all_input_nodes:
                        self._space(source).closed = True
        self._used.add(str(node.target))

    @staticmethod
    def _adds(node: fx.Node) -> bool:
        called = node.op in ("call_function", "call_method") and node.target in ADDITIONS
        return called and len(node.args) == 2 and not node.kwargs and all(isinstance(arg, fx.Node) for arg in node.args)

    @staticmethod
    def _keeps(node: fx.Node, module: nn.Module | None) -> bool:
        """Whether what comes out has the channels of what went in, and zeros where there were zeros."""
        if module is not None:
            if isinstance(module, BATCH_NORMS):
                return module.affine and module.track_running_stats
            return isinstance(module, QUIET_MODULES) or (isinstance(module, nn.Flatten) and module.start_dim == 1)
        if node.op not in ("call_function", "call_method"):
            return False
        if node.target in FLATTENINGS:
            return (*node.args[1:2], *node.kwargs.values()) == (1,)
        if node.target in MEANS:
            dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
            return isinstance(dims, list | tuple) and all(isinstance(dim, int) and dim in (2, 3, -1, -2) for dim in dims)
        return node.target in QUIET_FUNCTIONS

    def _new(self, size: int, *, closed: bool = False) -> _Space:
        self._spaces.append(_Space(size, closed))
        return self._spaces[-1]

    def _space(self, node: Any) -> _Space:
        return self._root(self._of[node])

    @staticmethod
    def _root(space: _Space) -> _Space:
        while space.into is not None:
            space = space.into
        return space

    @staticmethod
    def _tie(one: _Space, other: _Space) -> _Space:
        if one is not other:
            one.closed |= other.closed or one.size != other.size  # broadcast along the channels
            one.layers += other.layers
            one.readers += other.readers
            one.norms += other.norms
            other.into = one
        return one
