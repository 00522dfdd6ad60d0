"""Gates with differentiable polarization (Guo et al. 2021, arXiv 2109.02220): deterministic gates that end at 0 or well away from it.

A reconstruction: the public text has the smoothed L0 form, the bilinear multiply-adds and the sharing of gates along shortcuts; the
formula x^2 / (x^2 + eps), its annealing and the proximal step are ours.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from autosparse.models.errors import not_allowed
from autosparse.models.methods.channel_groups import channel_groups, no_channels
from autosparse.models.methods.compact import purge
from autosparse.models.methods.contract import Facts, Method, Parts, Settings, Setup, StepInfo
from autosparse.models.methods.dual_ascent import DualAscent
from autosparse.models.methods.expected_cost import ChannelCost, weight_counts
from autosparse.models.methods.gate_bank import FreeLogits, GateBank, attach_to_filters
from autosparse.models.methods.simple_controllers import FixedPenalty, Stateless
from autosparse.models.networks.flops import forward_macs
from autosparse.models.specs.rules import Range


@dataclass(frozen=True, kw_only=True, slots=True)
class Gdp(Settings):
    """`penalty` is the factor of the share of multiply-adds in the loss; with `target`, a share, dual ascent finds the factor by `dual_lr`.

    `l1` and `gate_lr` are the threshold and the step of the proximal descent on x, `eps_start` and `eps_end` the ends of a geometric
    annealing. `tied` also gates residual streams.
    """

    penalty: Annotated[float, Range(least=0)] = 1.0
    target: Annotated[float, Range(above=0, most=1)] | None = None
    dual_lr: Annotated[float, Range(above=0)] = 0.2
    l1: Annotated[float, Range(least=0)] = 0.005
    gate_lr: Annotated[float, Range(above=0)] = 0.5
    eps_start: Annotated[float, Range(above=0, most=1)] = 0.1
    eps_end: Annotated[float, Range(above=0, most=1)] = 1e-3
    tied: bool = True

    def __post_init__(self) -> None:
        super(Gdp, self).__post_init__()
        if self.eps_end > self.eps_start:
            raise not_allowed("eps_end", self.eps_end, f"<= eps_start, {self.eps_start}")


class Polarized(nn.Module):
    """g = x^2 / (x^2 + eps): 0 with slope 0 at x = 0, in [0, 1)."""

    random = False

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps: Tensor
        self.register_buffer("eps", torch.tensor(eps))

    def gates(self, logits: Tensor, noise: Tensor | None) -> Tensor:
        squares = logits.square()
        return squares / (squares + self.eps)

    def openness(self, logits: Tensor) -> Tensor:
        """The gate itself is what counts."""
        return self.gates(logits, None)


class Polarization(Stateless):
    """After each step: the proximal l1 step, which takes x to exactly 0, and the next eps. Both are in the network's state dict."""

    def __init__(self, x: Tensor, squash: Polarized, settings: Gdp) -> None:
        self._x, self._squash, self._settings = x, squash, settings

    @torch.no_grad()
    def after_step(self, info: StepInfo) -> None:
        shrink_(self._x, self._settings.gate_lr * self._settings.l1)
        done = min((info.step + 1) / max(info.total - 1, 1), 1.0)
        self._squash.eps.fill_(self._settings.eps_start * (self._settings.eps_end / self._settings.eps_start) ** done)

    def facts(self) -> Facts:
        return {"eps": float(self._squash.eps), "closed_gates": float((self._x == 0).float().mean())}


@torch.no_grad()
def shrink_(x: Tensor, threshold: float) -> None:
    """sign(x) * max(|x| - threshold, 0), in place."""
    x.copy_(x.sign() * (x.abs() - threshold).clamp_(min=0))


def parts(setup: Setup, settings: Gdp) -> Parts:
    """Gates that start at x = 1, plain SGD on x, the proximal step with the annealing, and the price of multiply-adds."""
    network, device = setup.network, next(setup.network.parameters()).device
    groups = channel_groups(network, tied=settings.tied)
    macs = {name: float(count) for name, count in forward_macs(network, setup.image_shape).items()}
    flops = ChannelCost(groups, macs, device, random=False)
    weights = ChannelCost(groups, weight_counts(network, head=setup.head), device, random=False)
    squash = Polarized(settings.eps_start)
    gates = attach_to_filters(network, groups, lambda sizes: FreeLogits(torch.ones(sum(sizes))), squash)
    bank, source = gates.bank, gates.bank.source
    assert isinstance(source, FreeLogits)
    return Parts(
        transforms=[gates],
        controllers=[Polarization(source.logits, squash, settings), _price(bank, flops, settings, device)],
        own=[torch.optim.SGD([source.logits], lr=settings.gate_lr)],
        rewrite=lambda trained, generator: purge(trained),
        facts=lambda: _facts(bank, flops, weights),
    )


def _price(bank: GateBank, flops: ChannelCost, settings: Gdp, device: torch.device) -> FixedPenalty | DualAscent:
    if settings.target is None:
        return FixedPenalty(bank, flops, settings.penalty)
    return DualAscent(lambda: flops.total(bank.openness())[None], torch.full((1,), settings.target, device=device), lr=settings.dual_lr)


def _facts(bank: GateBank, flops: ChannelCost, weights: ChannelCost) -> Facts:
    """Shares of multiply-adds as the gates are and as they are after removal, and the density after removal."""
    with torch.no_grad():
        alive = bank.alive()
        return {
            "gated_flops": float(flops.total(bank.openness())),
            "flops": float(flops.total(alive)),
            "density": float(weights.total(alive)),
        }


METHOD = Method(
    settings=Gdp,
    levels=(Gdp(penalty=0.3), Gdp(), Gdp(penalty=3.0)),
    by_density=False,
    parts=parts,
    refuses=no_channels,
    card=(
        "A reconstruction from the public text; no code is known. Formula, annealing of eps, proximal step, learning rates and levels are "
        "ours. A gate acts behind the BatchNorm of the layer that writes a channel, not before each reader. No gates of whole blocks."
    ),
)
