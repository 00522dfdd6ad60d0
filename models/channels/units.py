"""Units of width: the channels of a network that can only leave together, and what the network costs without some of them.

A residual stream is written by several layers, so one unit is one channel of all of them. Units come from the walk that compaction uses
(`trace.py`): what is cut here, compaction removes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autosparse.models.channels.dead import Dead, allowed, entries_of
from autosparse.models.channels.ledger import FIXED, Ledger
from autosparse.models.channels.trace import Trace
from autosparse.models.errors import not_allowed
from autosparse.models.masks import mask as masks
from autosparse.models.masks.mask import Mask
from autosparse.models.masks.reparametrized import copied


@dataclass(frozen=True)
class Units:
    """`group` (units,) is the number of the width that a unit belongs to: units of one group lie on the same axes of the same tensors.

    `sides`: parameter -> for each of its axes with channels, the unit of every index (size,), -1 where it stays; `written`: the side of
    the layer's outputs, by parameter. `layers` names each group after the first weight that writes it.
    """

    ledger: Ledger
    classes: Tensor
    unit_of_class: Tensor
    group: Tensor
    layers: tuple[str, ...]
    sides: dict[str, dict[int, Tensor]]

    @property
    def sizes(self) -> list[int]:
        """Units of each group."""
        return torch.bincount(self.group, minlength=len(self.layers)).tolist()

    def mask(self, network: nn.Module, stays: Tensor, *, head: bool = True) -> Mask:
        """The mask (of all prunable weights) that keeps what lies between units that stay; `stays` is (units,)."""
        dead = Dead(self.ledger, self.removed(stays))
        return {name: (~entries_of(dead, name, weight)).to(weight.device) for name, weight in masks.prunable(network, head=head).items()}

    def removed(self, stays: Tensor) -> Tensor:
        """The channel ids (ids,) of the units that do not stay (units,)."""
        return torch.cat([~stays, torch.zeros(1, dtype=torch.bool)])[self.unit_of_class][self.classes]

    def left(self, name: str, stays: Tensor) -> float:
        """The share of a parameter that is left when these units (units,) stay."""
        there = torch.cat([stays, torch.ones(1, dtype=torch.bool)])
        share = 1.0
        for units in self.sides.get(name, {}).values():
            share *= float(there[units].double().mean())
        return share


def units_of(network: nn.Module, example: Any) -> Units:
    """The units of a network, which stays as it is; `example` is one input, as for `compact`.

    Inputs and outputs of the network stay, and so does what the walk does not understand. In a grouped convolution the channels of the
    same place in every group are one unit, in a GroupNorm those of a whole group. Raises SpecError where nothing can leave.
    """
    copy, ledger = copied(network).eval(), Ledger()
    devices = {param.device for param in copy.parameters() if param.is_cuda}
    with torch.no_grad(), torch.random.fork_rng(devices):
        Trace(copy, masks.full(masks.prunable(copy)), ledger, constants=False).run(copy, example)
    for grouped in ledger.groups.values():
        if grouped.outputs is None:
            ledger.tie(grouped.inputs, grouped.inputs[:, :1])
            continue
        for ids in (grouped.inputs, grouped.outputs):
            if max(grouped.inputs.shape[1], grouped.outputs.shape[1]) > 1:  # groups of a single channel leave one by one
                ledger.tie(ids, ids[:1])
    classes = ledger.classes()
    lies_on: dict[int, list[tuple[str, int]]] = {}
    for place, ids in _places(ledger):
        for one in classes[ids].unique().tolist():
            lies_on.setdefault(one, []).append(place)
    found: dict[tuple[tuple[str, int], ...], list[int]] = {}
    for one, places in sorted(lies_on.items()):
        if one != FIXED:
            found.setdefault(tuple(places), []).append(one)
    groups = [members for members in found.values() if len(members) > 1 and _can_leave(ledger, classes, members[0])]
    if not groups:
        raise not_allowed("network", type(network).__name__, "a network with channels that can leave")
    return _units(ledger, classes, groups)


def _units(ledger: Ledger, classes: Tensor, groups: list[list[int]]) -> Units:
    members = [one for group in groups for one in group]
    unit_of_class = torch.full((len(classes),), -1)
    unit_of_class[members] = torch.arange(len(members))
    sides: dict[str, dict[int, Tensor]] = {}
    for (name, axis), ids in _places(ledger):
        units = unit_of_class[classes[ids]]
        if (units >= 0).any():
            sides.setdefault(name, {})[axis] = units
    group = torch.repeat_interleave(torch.arange(len(groups)), torch.tensor([len(one) for one in groups]))
    first: list[str] = []
    for number in range(len(groups)):
        writers = [name for name, axes in sides.items() if 0 in axes and (group[axes[0][axes[0] >= 0]] == number).any()]
        first.append((writers or [""])[0])
    return Units(ledger, classes, unit_of_class, group, tuple(first), sides)


def _places(ledger: Ledger) -> Iterator[tuple[tuple[str, int], Tensor]]:
    """Parameters and buffers with the ids along each of their axes; those of a grouped convolution's inputs once for all groups."""
    for name, axes in ledger.axes.items():
        for axis, ids in axes.items():
            yield (name, axis), ids
    for name, grouped in ledger.groups.items():
        if grouped.outputs is not None and grouped.inputs.shape[1] > 1:
            yield (name, 1), grouped.inputs[0]


def _can_leave(ledger: Ledger, classes: Tensor, one: int) -> bool:
    gone = classes == one
    return torch.equal(allowed(ledger, gone, classes), gone)


def costs_by_weight(macs: Mapping[str, int], network: nn.Module, cost: str, *, head: bool = True) -> dict[str, float]:
    """What each tensor costs as a whole: its `multiply_adds` (`macs`), its prunable `weights`, or all its `parameters`."""
    if cost == "multiply_adds":
        return {name: float(count) for name, count in macs.items()}
    if cost == "weights":
        return {name: float(weight.numel()) for name, weight in masks.prunable(network, head=head).items()}
    return {name: float(param.numel()) for name, param in network.named_parameters()}


def price(units: Units, whole: Mapping[str, float], stays: Tensor) -> float:
    """The cost that is left when these units (units,) stay; `whole` is that of each tensor in the whole network."""
    return sum(cost * units.left(name, stays) for name, cost in whole.items())
