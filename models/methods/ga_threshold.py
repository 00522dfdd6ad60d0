"""AUTOSPARSE with gradient annealing ("AUTOSPARSE: Towards Automated Sparse Training", arXiv 2304.06941), STR, and the same for a
fixed density.

Weights pass through a learned soft threshold per layer; of the gradient of what is pruned a share alpha passes, which is annealed
to 0, so that weights may return early and the pattern settles late. This is a reconstruction: idea and gradients are published,
the shape of the schedule, alpha at the start and the recipe of the thresholds are [unverified] and are settings.

What makes a network sparse is weight decay on s, as in STR (Kusupati et al. 2020, arXiv 2002.03231): it moves s up towards 0, the
loss moves it back where that hurts. Two things about it are ours. A decay given as a number would mean another density for another
length of training; here it is set by where it alone would take s by the end (`s_end`). And s has an optimizer of its own, SGD at
`threshold_lr` times the learning rate, with a decay larger by as much: in trainings of some thousand steps the loss would otherwise
hold thresholds down for good (920 steps of lenet300-100 on 8x8 digits, s_end -1, n=1: density .69 at threshold_lr 1, .21 at .01).
The raw weights have no decay by default: it would pull what is pruned away from its return.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from torch import nn

from autosparse.models.errors import not_allowed
from autosparse.models.masks import mask as masks
from autosparse.models.methods import budgets
from autosparse.models.methods.contract import Facts, Method, Parts, Settings, Setup, State, StepInfo
from autosparse.models.methods.thresholds import Largest, SoftThreshold, Thresholds
from autosparse.models.specs.fields import check_fields
from autosparse.models.specs.rules import Range

STEEPNESS = 12.0  # of the sigmoid over the training: it begins at .9975 and ends at .0025 [unverified]

Shape = Literal["const", "linear", "cosine", "sigmoid", "sigmoid_cosine"]
Alpha = Annotated[float, Range(least=0, most=1)]
Share = Annotated[float, Range(least=0, below=1)]
Decay = Annotated[float, Range(least=0)]
Logit = Annotated[float, Range(least=-80, below=0)]  # lower ones have a sigmoid of exactly 0 in float32, and no gradient


@dataclass(frozen=True, kw_only=True, slots=True)
class Str(Settings):
    """`s_init`: thresholds begin at sigmoid(s_init) in each layer. `s_end`: where weight decay alone would take s by the end of the
    training; equal to `s_init` = no decay on s. `threshold_lr`: how far the loss moves s, in learning rates of the weights; 1 is
    STR's. `weight_decay` is that of the raw weights, in place of the training's."""

    s_init: Logit = -8.0
    s_end: Logit = -1.5
    threshold_lr: Annotated[float, Range(above=0)] = 0.01
    weight_decay: Decay = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.s_end < self.s_init:
            raise not_allowed("s_end", self.s_end, f">= s_init, {self.s_init}")


@dataclass(frozen=True, kw_only=True, slots=True)
class GaThreshold(Str):
    """`alpha` at the start, its `schedule`, and the `last` share of the training, in which alpha is 0. All three [unverified]."""

    alpha: Alpha = 0.5
    schedule: Shape = "sigmoid_cosine"
    last: Share = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class GaTopk(Settings):
    """As in `GaThreshold`, with the largest weights at the density of the arm in place of a learned threshold."""

    alpha: Alpha = 0.5
    schedule: Shape = "sigmoid_cosine"
    last: Share = 0.2
    weight_decay: Decay = 0.0


class Following:
    """A controller that gives an optimizer the learning rate, times `scale`, and momentum of every step of a training."""

    def __init__(self, optimizer: torch.optim.Optimizer, rates: Sequence[tuple[float, float]], scale: float) -> None:
        self.optimizer, self.rates, self.scale = optimizer, rates, scale
        self._set(0)

    def loss_term(self) -> None:
        """None: nothing is added to the loss."""

    def after_step(self, info: StepInfo) -> None:
        self._set(min(info.step + 1, info.total - 1))

    def facts(self) -> Facts:
        return {}

    def state_dict(self) -> State:
        """Empty: both numbers are in the state of the optimizer."""
        return {}

    def load_state_dict(self, state: State) -> None: ...

    def _set(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"], group["momentum"] = self.scale * self.rates[step][0], self.rates[step][1]


class Annealing:
    """A controller (`autosparse.models.methods.contract`) that sets `alpha`, a scalar tensor, for every step of `total`."""

    def __init__(self, start: float, schedule: Shape, last: float, total: int, device: torch.device) -> None:
        self.start, self.schedule, self.steps = start, schedule, (1 - last) * total
        self.alpha = torch.empty((), device=device)
        self._set(0)

    def at(self, step: int) -> float:
        """alpha in this step: 0 from the share `last` before the end on."""
        progress = step / self.steps
        if progress >= 1:
            return 0.0
        cosine, sigmoid = (1 + math.cos(math.pi * progress)) / 2, 1 / (1 + math.exp(STEEPNESS * (progress - 0.5)))
        shapes = {"const": 1.0, "linear": 1 - progress, "cosine": cosine, "sigmoid": sigmoid, "sigmoid_cosine": max(sigmoid, cosine)}
        return self.start * shapes[self.schedule]

    def loss_term(self) -> None:
        """None: nothing is added to the loss."""

    def after_step(self, info: StepInfo) -> None:
        self._set(info.step + 1)

    def facts(self) -> Facts:
        """`alpha` of the next step."""
        return {"alpha": self.at(self._step)}

    def state_dict(self) -> State:
        return {"step": self._step}

    def load_state_dict(self, state: State) -> None:
        self._set(state["step"])

    def _set(self, step: int) -> None:
        self._step = step
        self.alpha.fill_(self.at(step))  # in place: the layers hold this tensor, and a compiled network sees no new constant


def decay_to(start: float, end: float, rates: Sequence[tuple[float, float]]) -> float:
    """The weight decay that takes a parameter without gradients from `start` to `end` in SGD steps at (learning rate, momentum).

    ln(start / end) over the sum of lr / (1 - momentum): what decays in a step counts as small.
    """
    return math.log(start / end) / sum(rate / (1 - momentum) for rate, momentum in rates)


def soft_parts(setup: Setup, settings: Str) -> Parts:
    """A learned threshold on every prunable weight; alpha is 0 throughout where the settings have none (STR)."""
    params = masks.prunable(setup.network, head=setup.head)
    annealed = settings if isinstance(settings, GaThreshold) else GaThreshold(alpha=0.0)
    annealing = _annealing(setup, annealed)
    layers = {name: SoftThreshold(settings.s_init, annealing.alpha) for name in params}
    optimizer = _sgd(setup, params, settings.weight_decay)
    attached = Thresholds(setup.network, layers)
    own = _own_sgd(setup, settings, [layer.s for layer in layers.values()])
    following = Following(own, setup.rates, settings.threshold_lr)

    def facts() -> Facts:
        levels = torch.stack([layer.s.detach() for layer in layers.values()]).sigmoid()
        return {"least_threshold": float(levels.min()), "largest_threshold": float(levels.max()), **_kept(attached)}

    return Parts(transforms=(attached,), controllers=(annealing, following), optimizer=optimizer, own=(own,), facts=facts)


def topk_parts(setup: Setup, settings: GaTopk) -> Parts:
    """The largest weights at the density of the arm, chosen anew in every step. Raises SpecError: no density, or too low a one."""
    params, annealing = masks.prunable(setup.network, head=setup.head), _annealing(setup, settings)
    optimizer = _sgd(setup, params, settings.weight_decay)
    attached = Largest(setup.network, params, budgets.density(setup), annealing.alpha)
    return Parts(transforms=(attached,), controllers=(annealing,), optimizer=optimizer, facts=partial(_kept, attached))


def _annealing(setup: Setup, settings: GaThreshold | GaTopk) -> Annealing:
    device = next(setup.network.parameters()).device
    return Annealing(settings.alpha, settings.schedule, settings.last, setup.steps, device)


def _sgd(setup: Setup, params: Mapping[str, nn.Parameter], weight_decay: float) -> torch.optim.Optimizer:
    """SGD over the whole network as the training says, with `params` at another weight decay."""
    train = setup.train
    rest = [param for name, param in setup.network.named_parameters() if name not in params]
    groups = [{"params": list(params.values()), "weight_decay": weight_decay}]
    groups += [{"params": rest, "weight_decay": train.weight_decay}] if rest else []
    return torch.optim.SGD(groups, lr=train.lr, momentum=train.momentum, nesterov=train.nesterov, fused=True)


def _own_sgd(setup: Setup, settings: Str, thresholds: list[nn.Parameter]) -> torch.optim.Optimizer:
    train, rates = setup.train, setup.rates
    decay = decay_to(settings.s_init, settings.s_end, rates) / settings.threshold_lr
    return torch.optim.SGD(thresholds, lr=train.lr, momentum=train.momentum, nesterov=train.nesterov, weight_decay=decay, fused=True)


def _kept(attached: Thresholds) -> Facts:
    """`density`: weights that are not zero for the network / prunable weights; `empty_layers`: how many have none."""
    kept = attached.kept()
    total = sum(raw.numel() for raw in attached.raw.values())
    return {"density": sum(kept.values()) / total, "empty_layers": float(sum(not count for count in kept.values()))}


_LEVELS = (-2.5, -1.5, -0.2)  # s_end; 920 steps of resnet8 with 8 channels on digits, n=1: densities .56, .24, .07
_DECAY = "Thresholds rise by weight decay on s, set by where it alone would take s (s_end), at a learning rate of their own: both ours."
_ALPHA = "alpha at the start, the shape of its schedule and the share of the training at alpha = 0 are [unverified] settings"

GA_THRESHOLD = Method(
    settings=GaThreshold,
    levels=tuple(GaThreshold(s_end=end) for end in _LEVELS),
    by_density=False,
    parts=soft_parts,
    card=f"Reconstruction of AUTOSPARSE (arXiv 2304.06941): idea and gradients are published; {_ALPHA}. {_DECAY}",
)
GA_TOPK = Method(
    settings=GaTopk,
    levels=(GaTopk(),),
    by_density=True,
    parts=topk_parts,
    card=f"AUTOSPARSE's gradients for the largest weights at a fixed density, layers by Erdos-Renyi-kernel (ours); {_ALPHA}.",
    refuses=budgets.refuses,
)
STR = Method(
    settings=Str,
    levels=tuple(Str(s_end=end) for end in _LEVELS),
    by_density=False,
    parts=soft_parts,
    card=f"STR (arXiv 2002.03231): ga_threshold at alpha = 0 throughout; forward and gradients are those of the paper. {_DECAY}",
)
