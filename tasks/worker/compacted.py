"""The network that an arm trains in place of the whole one: without the channels that its mask cut off (`fanout.compact`)."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from autosparse.library.compaction import compact_to_train
from autosparse.models.channels.examples import example_of
from autosparse.models.errors import AutosparseError
from autosparse.models.masks import gates
from autosparse.models.masks import mask as masks
from autosparse.models.masks.mask import Mask
from autosparse.models.networks.calls import Shape
from autosparse.models.networks.flops import forward_macs


@dataclass(frozen=True)
class Compacted:
    """A network and its mask. `facts`: its parameters and multiply-adds per image, before and after, or the reason why it is whole."""

    network: nn.Module
    mask: Mask
    facts: dict[str, Any]


def compacted(whole: nn.Module, mask: Mask, shape: Shape) -> Compacted:
    """The smaller network, or the whole one where it cannot be made smaller; `whole` stays as it is."""
    try:
        small, left = compact_to_train(whole, example_of(shape), mask)
    except AutosparseError as error:
        return Compacted(whole, mask, {"reason": str(error)})
    lost = masks.kept(gates.effective(whole, mask, shape)) - masks.kept(gates.effective(small, left, shape))
    if lost:
        return Compacted(whole, mask, {"reason": f"compact: {type(whole).__name__}: {lost} weights that lie on a path would be lost"})
    sizes = {"parameters": _parameters, "multiply_adds": lambda network: sum(forward_macs(network, shape).values())}
    return Compacted(small, left, {name: {"before": size(whole), "after": size(small)} for name, size in sizes.items()})


def _parameters(network: nn.Module) -> int:
    return sum(param.numel() for param in network.parameters())
