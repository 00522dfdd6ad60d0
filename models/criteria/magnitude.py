"""The criteria that look at no data: random, and the magnitude of the weights."""

import torch
from torch import nn

from autosparse.models.criteria.iterative import iterated
from autosparse.models.gradients import Batches
from autosparse.models.masks.mask import Scores, prunable

ITERATIONS = 30


def random(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
    """Independent uniform scores in [0, 1) from `generator`: every mask of a given size is equally likely."""
    return {
        name: torch.rand(param.shape, generator=generator, device=generator.device).to(param.device)
        for name, param in prunable(network, head=head).items()
    }


def magnitude(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
    """|w|, compared over all layers."""
    return {name: param.detach().abs() for name, param in prunable(network, head=head).items()}


def magnitude_iterative(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
    """`magnitude` in 30 iterations without training in between: the identity, masks are those of one shot at every density.

    A weight's magnitude does not depend on the others, so the iterations remove weights in one and the same order. It stands
    beside the other iterated criteria as their control; with training in between it is iterative rewind pruning.
    """
    return iterated(magnitude, ITERATIONS)(network, batches, generator, head=head, density=density)
