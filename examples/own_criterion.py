"""A criterion and a recipe of your own, without a fork; from the folder above this one:

autosparse run --recipe examples.own_criterion:recipe
autosparse run --recipe smoke --set 'fanout.methods=[magnitude,examples.own_criterion:lamp,examples.own_criterion:PER_LAYER]'
"""

from dataclasses import replace

import torch
from torch import nn

from autosparse.flows.recipes import smoke
from autosparse.models.criteria.contract import Criterion
from autosparse.models.gradients import Batches
from autosparse.models.masks.allocation import uniform_topk
from autosparse.models.masks.mask import Scores, prunable
from autosparse.models.specs.experiment import ExperimentSpec


def lamp(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
    """w ** 2 over the sum of the squares of all weights of its layer that are not smaller (Lee et al. 2021, arXiv 2010.07611)."""
    scores = {}
    for name, weight in prunable(network, head=head).items():
        squares, order = weight.detach().reshape(-1).square().sort(stable=True)
        scores[name] = torch.empty_like(squares)
        scores[name][order] = squares / squares.flip(0).cumsum(0).flip(0)
        scores[name] = scores[name].view(weight.shape)
    return scores


PER_LAYER = Criterion(lamp, uniform_topk)  # the same scores, cut by another allocation than global top-k


def recipe() -> ExperimentSpec:
    """The smallest recipe with this criterion beside magnitude."""
    base = smoke()
    return replace(base, fanout=replace(base.fanout, methods=("magnitude", "examples.own_criterion:lamp", "scorer")))
