"""SNIP, in one shot and iterated, and FORCE: how much the loss changes when a connection is taken away."""

import torch
from torch import nn

from autosparse.models.criteria.iterative import iterated
from autosparse.models.gradients import Batches, mean_gradients
from autosparse.models.masks.mask import Scores, prunable

ITERATIONS = 30


def snip(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
    """|w * g|, g = dL/dw of the mean cross entropy over `batches` (Lee et al. 2019, arXiv 1810.02340).

    With a mask m multiplied to the weights, dL/dm at m = 1 is w * g. The paper divides by the sum over all weights, which
    changes no ranking. BatchNorm uses batch statistics.
    """
    params = prunable(network, head=head)
    gradients = mean_gradients(network, batches, params)
    return {name: (param.detach() * gradients[name]).abs() for name, param in params.items()}


def slope(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
    """|g|, g = dL/dw of the mean cross entropy over `batches`: what `snip` gives per unit of weight. Not a criterion by itself."""
    return {name: gradient.abs() for name, gradient in mean_gradients(network, batches, prunable(network, head=head)).items()}


def snip_iterative(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
    """`snip` in 30 iterations on the exponential schedule; scores are ranks of death (`ranks_of_death`).

    Iterative SNIP of de Jorge et al. 2021, arXiv 2006.09081: |w * g| at the network pruned so far, pruned weights stay pruned.
    All iterations see the same `batches`; the authors' code (naver/force) draws a fresh batch for each.
    """
    return iterated(snip, ITERATIONS)(network, batches, generator, head=head, density=density)


def force(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
    """FORCE in 30 iterations on the exponential schedule (de Jorge et al. 2021, arXiv 2006.09081).

    The mask of each iteration is the top k of *all* weights by |w * g|, w the dense network's and g the gradient at the network
    under the mask before, pruned weights' too: they may come back. The top k at `density` are FORCE's mask; `ranks_of_death`
    says what masks of larger densities are. All iterations see the same `batches`; the authors' code draws a fresh batch for each.
    """
    return iterated(slope, ITERATIONS, revive=True)(network, batches, generator, head=head, density=density)
