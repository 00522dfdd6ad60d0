"""Name -> criterion: the only door to them. A new criterion is one function and one line here."""

from typing import NamedTuple, Protocol

import torch
from torch import nn

from models.allocation import erk_topk, global_topk
from models.criteria.gradient_flow import grasp
from models.criteria.magnitude import magnitude, random
from models.criteria.sensitivity import snip
from models.criteria.synaptic_flow import synflow
from models.gradients import Batches
from models.masks import Mask, Scores


class ScoreFn(Protocol):
    """Scores of the prunable weights (higher = keep); the network is the same bit for bit afterwards.

    `density` is the smallest density that will be cut from these scores: one score vector serves all densities.
    """

    def __call__(
        self, network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float
    ) -> Scores: ...


class Allocate(Protocol):
    """The mask of exactly `density`, at least `floor` weights in each layer, out of the weights of `alive`."""

    def __call__(self, scores: Scores, density: float, *, floor: int = 0, alive: Mask | None = None) -> Mask: ...


class Criterion(NamedTuple):
    """How weights are scored, and how scores become a mask."""

    score: ScoreFn
    allocate: Allocate = global_topk


CRITERIA: dict[str, Criterion] = {
    "random": Criterion(random),
    "erk": Criterion(random, erk_topk),
    "magnitude": Criterion(magnitude),
    "snip": Criterion(snip),
    "grasp": Criterion(grasp),
    "synflow": Criterion(synflow),
}
