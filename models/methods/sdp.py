"""Structured directional pruning (arXiv 2107.05328): dual averaging whose threshold takes whole filters. A reconstruction."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import nn

from autosparse.models.methods.contract import Facts, Method, Parts, Settings, Setup
from autosparse.models.methods.dual_averaging import GroupThreshold, densities, group_norms, over_network
from autosparse.models.methods.filter_groups import filter_groups
from autosparse.models.specs.rules import Range


@dataclass(frozen=True, kw_only=True, slots=True)
class SdpSettings(Settings):
    """`c` and `mu` as in grda, of a threshold for the norm of a group: that of a filter with its scale begins near sqrt(3), so c is larger.

    `weighting`: "size" multiplies the threshold of a group by sqrt(size / mean size), "none" leaves it. `variant` is the one
    reconstruction there is.
    """

    c: Annotated[float, Range(least=0, most=10)] = 0.3
    mu: Annotated[float, Range(least=0.4, below=1)] = 0.51
    weighting: Literal["size", "none"] = "size"
    variant: Literal["group_dual_averaging"] = "group_dual_averaging"


def parts(setup: Setup, settings: SdpSettings) -> Parts:
    """The optimizer of all parameters; facts: `threshold`, `groups` (share of groups not zero), and the densities of single numbers."""
    network = setup.network
    params, families = filter_groups(network, setup.image_shape, head=setup.head, by_size=settings.weighting == "size")
    prox = GroupThreshold(families)
    optimizer = over_network(network, params, lr=setup.train.lr, c=settings.c, mu=settings.mu, prox=prox)

    def facts() -> Facts:
        return {"threshold": optimizer.threshold(), "groups": groups_left(prox, params), **densities(network, head=setup.head)}

    return Parts(optimizer=optimizer, facts=facts)


@torch.no_grad()
def groups_left(prox: GroupThreshold, params: list[nn.Parameter]) -> float:
    """Share of the groups that are not exactly zero."""
    left = [group_norms(family, params) != 0 for family in prox.families]
    return int(torch.cat(left).count_nonzero()) / sum(map(len, left))


SDP = Method(
    settings=SdpSettings,
    levels=(SdpSettings(c=0.3, mu=0.8), SdpSettings(c=0.5, mu=0.8)),
    by_density=False,
    parts=parts,
    card=(
        "Structured directional pruning: a reconstruction, because no code is public; the authors' alternation (AltSDP) and their weights "
        "of groups are not known and not claimed. Dual averaging as in grda with a group threshold: filter, bias and the scale and shift "
        "of the BatchNorm that reads it; inputs of linear layers. The classifier loses inputs, never classes; in a residual "
        "sum each branch loses channels by itself. SGD without momentum and without weight decay, whatever the training spec says. "
        "Not verified against any published figure. No density target."
    ),
)
