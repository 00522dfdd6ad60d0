"""A latency as the target of channels: how many multiply-adds a network may keep to take a share of the dense network's time.

A mask depends on a share of the multiply-adds, which is exact and the same on every machine. The latency finds that share, on this machine.
"""

import math
from collections.abc import Callable

import torch
from torch import nn

from autosparse.library.compaction import compact_to_train
from autosparse.models.channels.plain import plain_copy
from autosparse.models.errors import not_allowed
from autosparse.models.masks.mask import Mask
from autosparse.models.networks.calls import Inputs
from autosparse.models.networks.latency import latencies

LATENCY = "latency"
LOOKS = 8  # halvings of the range of shares, by ratio
SECONDS, MOST = 0.2, 200  # of forward passes at each look, of the smaller network and as much of the dense one


def share_of_latency(network: nn.Module, inputs: Inputs, wanted: float, least: float, cut: Callable[[float], Mask]) -> float:
    """The largest share of the multiply-adds, of those looked at, with which `network` takes at most `wanted` of the dense one's time.

    Measured for `inputs`, without the channels that left. `cut` gives the mask of a share, of which `least` is the smallest there is.
    Raises SpecError where even that takes longer, or where the network cannot be compacted. The network stays as it is.
    """

    def ratio(share: float) -> float:
        small, dense = both(network, inputs, cut(share))
        return small / dense

    low, high = _rounded_up(least), 1.0
    if (smallest := ratio(low)) > wanted:
        raise not_allowed("density", wanted, f"at least {smallest:.2g} of the latency, which one channel per layer takes on this machine")
    for _ in range(LOOKS):
        middle = _rounded_up(math.sqrt(low * high))
        if not low < middle < high:
            break
        low, high = (middle, high) if ratio(middle) <= wanted else (low, middle)
    return low


def latency_note(network: nn.Module, inputs: Inputs, mask: Mask, share: float) -> str:
    """What a person should know of a mask that was cut for its latency."""
    small, dense = both(network, inputs, mask)
    threads = torch.get_num_threads()
    return (
        f"{share:g} of the multiply-adds are left: without its cut channels the network takes {small / dense:.0%} of the dense one's time "
        f"({small:.3g} and {dense:.3g} ms a forward pass) on this machine, with {threads} thread{'s' * (threads > 1)}"
    )


def both(network: nn.Module, inputs: Inputs, mask: Mask) -> list[float]:
    """The median milliseconds of a forward pass of the network without the channels that the mask cut off, and of the dense one."""
    small, dense = compact_to_train(network, inputs, mask)[0].eval(), plain_copy(network)[0].eval()
    return latencies([small, dense], inputs, seconds=SECONDS, most=MOST)[0]


def _rounded_up(share: float) -> float:
    """To three digits, so that a person can give the share again and get the same mask."""
    digits = 2 - math.floor(math.log10(share))
    return min(1.0, math.ceil(share * 10**digits) / 10**digits)
