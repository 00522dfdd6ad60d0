"""Training under a constraint on the expected number of weights (Gallego-Posada et al. 2022, arXiv 2208.04425)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from autosparse.models import seeding
from autosparse.models.errors import SpecError, not_allowed
from autosparse.models.masks import mask as masks
from autosparse.models.methods import hard_concrete
from autosparse.models.methods.channel_groups import ChannelGroup, channel_groups
from autosparse.models.methods.compact import purge
from autosparse.models.methods.contract import Facts, Method, Parts, Settings, Setup
from autosparse.models.methods.dual_ascent import DualAscent
from autosparse.models.methods.expected_cost import ChannelCost, Cost, WeightCost, weight_counts, whole
from autosparse.models.methods.gate_bank import FreeLogits, GateBank, Gates, HardConcrete, filter_places, weight_places
from autosparse.models.methods.simple_controllers import Clamp, OpenDecay
from autosparse.models.specs.rules import Range

LOGIT_SPREAD = 0.01  # standard deviation of the first logits
SMALL = 0.1  # below this density the published clamp may be in the way
DUAL_LR = {"filter": 0.1, "weight": 1.0}  # chosen for 1000 steps on small images; many weights share one gradient, so it must be steeper
HEADROOM = 4  # a lowered clamp leaves gates open with probability density / HEADROOM


@dataclass(frozen=True, kw_only=True, slots=True)
class ConstrainedL0(Settings):
    """`unit`: a gate per output filter or per weight. `scope`: one constraint, or one per layer that has gates.

    `tied` also gates residual streams, all layers that write one by one gate (the published code gates the first convolution of a block
    alone). Logits stay within log `clamp` and -log `clamp`; `lower_clamp` lowers the lower end for densities below 0.1. `decay` open:
    the weight decay of a gated weight counts with the probability that its gate is open; plain: as any weight's. `dual_lr` None is
    that of `DUAL_LR` for the unit.
    """

    unit: Literal["filter", "weight"] = "filter"
    scope: Literal["model", "layer"] = "model"
    tied: bool = True
    gate_lr: Annotated[float, Range(above=0)] = 0.1
    dual_lr: Annotated[float, Range(above=0)] | None = None
    restarts: bool = True
    droprate: Annotated[float, Range(above=0, below=1)] = 0.3
    clamp: Annotated[float, Range(above=0, below=0.5)] = 0.01
    lower_clamp: bool = True
    decay: Literal["open", "plain"] = "open"


def parts(setup: Setup, settings: ConstrainedL0) -> Parts:
    """Gates with their optimizer, the dual controller, the clamp and the decay."""
    network, device = setup.network, next(setup.network.parameters()).device
    groups, cost = _cost(setup, settings)
    places = filter_places(network, groups) if groups else weight_places(network, head=setup.head)
    params = masks.prunable(network, head=setup.head)
    sizes = [group.size for group in groups] or [param.numel() for param in params.values()]
    weights = (
        [(_weight(network, site.layer), index) for index, group in enumerate(groups) for site in group.sites]
        if groups
        else [(param, index) for index, param in enumerate(params.values())]
    )
    draws = seeding.generator(setup.seed, "method", "logits")
    start = math.log((1 - settings.droprate) / settings.droprate)
    source = FreeLogits(start + LOGIT_SPREAD * torch.randn(sum(sizes), generator=draws))
    everything = list(network.parameters())
    gates = Gates(network, GateBank(source, HardConcrete(), sizes), places, groups)
    bank, density = gates.bank, setup.density
    assert density is not None
    dual = _dual(bank, cost, settings, density, device)
    clamp = Clamp(source.logits, lowest_logit(settings, density), -math.log(settings.clamp))
    decays = settings.decay == "open" and setup.train.weight_decay > 0
    return Parts(
        transforms=[gates],
        controllers=[clamp, dual, *([OpenDecay(bank, weights, setup.train.weight_decay)] if decays else [])],
        optimizer=_sgd(setup, everything, [weight for weight, _ in weights]) if decays else None,
        own=[torch.optim.Adam([source.logits], lr=settings.gate_lr)],
        rewrite=(lambda trained, generator: purge(trained)) if groups else None,
        facts=lambda: densities(bank, cost),
    )


def densities(bank: GateBank, cost: Cost) -> Facts:
    """The expected density, and that of the gates of eval mode: of prunable weights; for a cost in multiply-adds, of those."""
    with torch.no_grad():
        return {"expected_density": float(cost.total(bank.openness())), "density": float(cost.total(bank.alive()))}


def lowest_logit(settings: ConstrainedL0, density: float) -> float:
    """The lower end of the clamp for an arm of `density`."""
    published = math.log(settings.clamp)
    if not settings.lower_clamp or density >= SMALL:
        return published
    return min(published, hard_concrete.logit_at(density / HEADROOM))


def refuses(setup: Setup, settings: ConstrainedL0) -> str | None:
    """Networks without channels to gate, and densities below what the clamp and the layers without gates leave."""
    if setup.density is None:
        return str(not_allowed("density", None, "a density, which the constraint holds"))
    try:
        groups, cost = _cost(setup, settings)
    except SpecError as error:
        return str(error)
    open_still = float(torch.sigmoid(torch.tensor(lowest_logit(settings, setup.density) - hard_concrete.SHIFT)))
    sizes = [group.size for group in groups] or [1] * len(cost.names)
    shares = cost.shares([torch.full((size,), open_still, device=cost.costs.device) for size in sizes])
    chosen = _constrained(cost, settings)
    floor = float(whole(cost.costs, shares)) if chosen is None else float(shares[chosen].max())
    if floor <= setup.density:
        return None
    ways = "lower_clamp=true, tied=true or unit=weight reach further down"
    return str(not_allowed("density", setup.density, f">= {floor:.3g}, where all gates are at the clamp ({ways})"))


def _cost(setup: Setup, settings: ConstrainedL0) -> tuple[list[ChannelGroup], Cost]:
    counts, device = weight_counts(setup.network, head=setup.head), next(setup.network.parameters()).device
    if settings.unit == "weight":
        return [], WeightCost(counts, device)
    groups = channel_groups(setup.network, tied=settings.tied)
    return groups, ChannelCost(groups, counts, device)


def _constrained(cost: Cost, settings: ConstrainedL0) -> list[int] | None:
    """The layers that have a constraint of their own; None = the network has one."""
    return None if settings.scope == "model" else [cost.names.index(name) for name in cost.gated]


def _dual(bank: GateBank, cost: Cost, settings: ConstrainedL0, density: float, device: torch.device) -> DualAscent:
    chosen = _constrained(cost, settings)

    def shares() -> Tensor:
        each = cost.shares(bank.openness())
        return whole(cost.costs, each)[None] if chosen is None else each[chosen]

    targets = torch.full((1 if chosen is None else len(chosen),), density, device=device)
    return DualAscent(shares, targets, lr=settings.dual_lr or DUAL_LR[settings.unit], restarts=settings.restarts)


def _sgd(setup: Setup, parameters: Sequence[nn.Parameter], gated: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """The SGD of the spec, which leaves the decay of gated weights to `OpenDecay`."""
    train, apart = setup.train, {id(weight) for weight in gated}
    groups = [
        {"params": [param for param in parameters if id(param) not in apart], "weight_decay": train.weight_decay},
        {"params": [param for param in parameters if id(param) in apart], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]], lr=train.lr, momentum=train.momentum, nesterov=train.nesterov, fused=True
    )


def _weight(network: nn.Module, layer: str) -> nn.Parameter:
    weight = network.get_submodule(layer).weight
    assert isinstance(weight, nn.Parameter)
    return weight


METHOD = Method(
    settings=ConstrainedL0,
    levels=(ConstrainedL0(), ConstrainedL0(unit="weight")),
    by_density=True,
    parts=parts,
    refuses=refuses,
    card=(
        "Gates, their clamp, the dual ascent with restarts and the weighted decay are those of the published code. Ours: a filter's gate "
        "acts behind its BatchNorm, density counts what removing filters removes from the layers on both sides, residual streams are gated "
        "too, logits are trained by Adam, weights are not divided by 1 - droprate, BatchNorm sees all channels, and learning rates are for "
        "about 1000 steps. The constraint holds the expected density; the density of the network in use is a fact beside it."
    ),
)
