"""What one or more traces of a network say of its channels: plain numbers, no modules.

A channel id stands for one channel of one tensor of the forward pass. Id 0 is "fixed": whatever cannot be followed or removed.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

FIXED = 0


@dataclass(frozen=True)
class Mixing:
    """Each of `outputs` is a sum over the `inputs` that `connected` (outputs, inputs) keeps: a layer with weights."""

    outputs: Tensor
    inputs: Tensor
    connected: Tensor


@dataclass(frozen=True)
class Passing:
    """Output i comes from input i alone: additions, products, depthwise convolutions."""

    outputs: Tensor
    inputs: Tensor


@dataclass(frozen=True)
class Grouped:
    """Channels in groups of equal size (groups, size): the rows of a grouped convolution's inputs and outputs.

    `outputs` is None for a GroupNorm, whose groups leave whole or not at all.
    """

    inputs: Tensor
    outputs: Tensor | None = None


@dataclass(frozen=True)
class Constant:
    """What inputs of a layer that nothing of the network's input reaches hold instead.

    `values` (inputs,) is 0 where there is nothing, and NaN where the value is not the same everywhere.
    """

    weight: str
    inputs: Tensor
    outputs: Tensor
    values: Tensor
    foldable: bool


@dataclass
class Ledger:
    """Ids, what ties them, how values go from one to the other, and which tensors of the network have them on which axis.

    `elements` are parameters with an id for each element; `rectangles` are ids that lie along several axes of one tensor: only whole
    rows of one of these axes can leave. `heads` (heads, numbers of a head) are the outputs of the attention in a module.
    `connected`: whether anything of the input may reach an output.
    """

    reached: Tensor = field(default_factory=lambda: torch.ones(1, dtype=torch.bool))
    ties: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    edges: list[Mixing | Passing] = field(default_factory=list)
    ends: list[Tensor] = field(default_factory=lambda: [torch.zeros(1, dtype=torch.long)])
    axes: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    elements: dict[str, Tensor] = field(default_factory=dict)
    rectangles: list[Tensor] = field(default_factory=list)
    groups: dict[str, Grouped] = field(default_factory=dict)
    heads: dict[str, Tensor] = field(default_factory=dict)
    constants: list[Constant] = field(default_factory=list)
    connected: bool = False

    def new(self, reached: Tensor) -> Tensor:
        """Fresh ids, one for each of `reached`: whether anything of the network's input can reach it. Same shape."""
        start = len(self.reached)
        self.reached = torch.cat([self.reached, reached.flatten()])
        return torch.arange(start, len(self.reached)).view(reached.shape)

    def tie(self, one: Tensor, other: Tensor) -> None:
        """Channels that can only leave together."""
        one, other = torch.broadcast_tensors(one, other)
        different = one != other
        if different.any():
            self.ties.append((one[different], other[different]))

    def end(self, ids: Tensor) -> None:
        """Channels that something reads that is not understood, or the reader of the output: needed, and there to stay."""
        ids = ids.unique()
        self.ends.append(ids)
        self.tie(ids, torch.zeros_like(ids))

    def mix(self, inputs: Tensor, connected: Tensor) -> Tensor:
        """The ids of what a layer makes of `inputs`; `connected` as in `Mixing`."""
        outputs = self.new((connected & self.reached[inputs]).any(1))
        self.edges.append(Mixing(outputs, inputs, connected))
        return outputs

    def hand_on(self, inputs: Tensor, reached: Tensor) -> Tensor:
        """The ids of what comes, one by one, out of `inputs`; tied to them."""
        outputs = self.new(reached)
        self.also_from(outputs, inputs)
        return outputs

    def also_from(self, outputs: Tensor, inputs: Tensor) -> None:
        """`outputs` come from `inputs` as well."""
        outputs, inputs = (ids.flatten() for ids in torch.broadcast_tensors(outputs, inputs))
        self.edges.append(Passing(outputs, inputs))
        self.tie(outputs, inputs)

    def use(self, tensor: str, axis: int, ids: Tensor) -> None:
        """A parameter or buffer has these channels on an axis. A layer that is used twice ties what it is used for."""
        known = self.axes.setdefault(tensor, {})
        self.tie(ids, known.setdefault(axis, ids))

    def classes(self) -> Tensor:
        """For each id the smallest id that it is tied to, over any number of ties."""
        labels = torch.arange(len(self.reached))
        if not self.ties:
            return labels
        one, other = (torch.cat(side) for side in zip(*self.ties, strict=True))
        while True:
            least = torch.minimum(labels[one], labels[other])
            joined = labels.clone()
            for side in (labels[one], labels[other], one, other):
                joined.scatter_reduce_(0, side, least, "amin")
            while not torch.equal(joined, joined[joined]):
                joined = joined[joined]
            if torch.equal(joined, labels):
                return labels
            labels = joined

    def needed(self) -> Tensor:
        """Which ids something that reaches the output depends on."""
        needed = torch.zeros_like(self.reached)
        needed[torch.cat(self.ends)] = True
        for edge in reversed(self.edges):
            live = needed[edge.outputs] & self.reached[edge.outputs]
            if isinstance(edge, Mixing):
                needed[edge.inputs[(edge.connected & live[:, None]).any(0)]] = True
            else:
                needed[edge.inputs[live]] = True
        return needed
