"""Sparse-to-sparse training: at intervals the smallest weights of each layer are dropped and as many others grown in their place.

The frame is that of RigL (Evci et al. 2020, arXiv 1911.11134); what a method brings is the score by which it grows. Two things
differ from widespread code: counts are exact, also where the score is random, and weights and gradients at an update belong to the
same step, because the optimizer does not step on it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import erk_topk
from autosparse.models.masks.mask import Mask
from autosparse.models.methods.contract import Facts, State, StepInfo


class Candidates(NamedTuple):
    """What the score of a layer may look at, all of the layer's shape: dense gradients, and at how many masks each weight was active."""

    gradient: Tensor
    active: Tensor


class Growth(NamedTuple):
    """The score of a layer, higher = grown first. `exploration` is the part of it that is no gradient, where it has two parts."""

    score: Tensor
    exploration: Tensor | None = None


Acquire = Callable[[Candidates, int, torch.Generator], Growth]  # (candidates of a layer, step, random numbers)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """When and how much: every `interval` steps before step `end`, a share of the active weights that falls from `drop_rate` to 0
    along half a cosine."""

    interval: int
    drop_rate: float
    end: float

    def due(self, step: int) -> bool:
        """Never at step 0, where nothing has been learned."""
        return 0 < step < self.end and step % self.interval == 0

    def share(self, step: int) -> float:
        """Of the active weights of a layer that are replaced at this step."""
        return self.drop_rate / 2 * (1 + math.cos(math.pi * step / self.end))


def random_mask(network: nn.Module, density: float, generator: torch.Generator, *, head: bool) -> Mask:
    """A random mask of exactly `density`, layers by Erdos-Renyi-kernel, no layer without a weight. Raises SpecError."""
    params = masks.prunable(network, head=head)
    scores = {name: torch.rand(param.shape, generator=generator) for name, param in params.items()}
    return {name: keep.to(params[name].device) for name, keep in erk_topk(scores, density, floor=1).items()}


class DropAndGrow:
    """A mask schedule (`autosparse.models.methods.contract`) whose count per layer never changes.

    `active` counts for each weight the masks that had it active, the first one included. Weights that come or go are set to zero,
    and so is what the optimizer remembers of them.
    """

    def __init__(self, mask: Mask, plan: Plan, acquire: Acquire) -> None:
        self.mask, self.plan, self.acquire = mask, plan, acquire
        self.active = {name: keep.to(torch.int32) for name, keep in mask.items()}
        self._replaced = 0.0  # share of the active weights, at the last update
        self._terms: list[float] | None = None  # sums of exploration and |gradient| over the inactive weights, at the last update

    def due(self, info: StepInfo) -> bool:
        return self.plan.due(info.step)

    @torch.no_grad()
    def update(self, network: nn.Module, optimizer: torch.optim.Optimizer, info: StepInfo, generator: torch.Generator) -> bool:
        """Replace the smallest active weights of each layer by the inactive ones of highest score; ties go by index.

        Returns False, the optimizer does not step, unless no layer was large enough to change.
        """
        params, share = dict(network.named_parameters()), self.plan.share(info.step)
        fresh, changed, terms = {}, 0, torch.zeros(2)
        for name, keep in self.mask.items():
            param = params[name]
            gradient = param.grad if param.grad is not None else torch.zeros_like(param)
            growth = self.acquire(Candidates(gradient, self.active[name]), info.step, generator)
            count = min(round(share * int(keep.count_nonzero())), int((~keep).count_nonzero()))
            dropped = _highest(-param.abs(), keep, count)
            grown = _highest(growth.score, ~keep, count)  # what is dropped here was active until now and is no candidate
            _forget(param, optimizer, dropped | grown)
            fresh[name] = keep & ~dropped | grown
            self.active[name] += fresh[name]
            changed += count
            if growth.exploration is not None:
                terms += torch.stack([growth.exploration[~keep].sum(), gradient[~keep].abs().sum()]).cpu()
        self.mask = fresh
        self._replaced = changed / masks.kept(fresh)
        self._terms = terms.tolist() if float(terms[0]) else None
        return not changed

    def facts(self) -> Facts:
        """`exploration_degree`: weights that were ever active / prunable weights. `replaced`: share of the active weights that the
        last update replaced. `score_ratio`: the exploration part of the score over its gradient part, means over the weights that
        were inactive at the last update; only where the score has both."""
        seen = sum(int(count.count_nonzero()) for count in self.active.values())
        known = {"density": masks.density(self.mask), "exploration_degree": seen / masks.total(self.mask), "replaced": self._replaced}
        if self._terms and self._terms[1]:
            known["score_ratio"] = self._terms[0] / self._terms[1]
        return known

    def state_dict(self) -> State:
        return {"mask": dict(self.mask), "active": dict(self.active), "replaced": self._replaced, "terms": self._terms}

    def load_state_dict(self, state: State) -> None:
        devices = {name: keep.device for name, keep in self.mask.items()}
        self.mask = {name: state["mask"][name].to(device, copy=True) for name, device in devices.items()}
        self.active = {name: state["active"][name].to(device, copy=True) for name, device in devices.items()}
        self._replaced, self._terms = state["replaced"], state["terms"]


def _highest(values: Tensor, candidates: Tensor, count: int) -> Tensor:
    """A bool tensor of the same shape: the `count` candidates of highest value, lower index first among equals."""
    order = values.masked_fill(~candidates, -math.inf).reshape(-1).sort(descending=True, stable=True).indices
    chosen = torch.zeros(values.numel(), dtype=torch.bool, device=values.device)
    chosen[order[:count]] = True
    return chosen.view(values.shape)


def _forget(param: nn.Parameter, optimizer: torch.optim.Optimizer, changed: Tensor) -> None:
    """Set weights and what the optimizer remembers of them, momentum and its like, to zero."""
    param.masked_fill_(changed, 0)
    for value in optimizer.state.get(param, {}).values():
        if isinstance(value, Tensor) and value.shape == param.shape:
            value.masked_fill_(changed, 0)
