"""What a criterion is made of: the call shape of its two halves."""

from typing import NamedTuple, Protocol

import torch
from torch import nn

from autosparse.models.gradients import Batches
from autosparse.models.masks.allocation import global_topk
from autosparse.models.masks.mask import Mask, Scores


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
    """How weights are scored, and how scores become a mask: an entry of the registry, or an object of one's own module."""

    score: ScoreFn
    allocate: Allocate = global_topk
