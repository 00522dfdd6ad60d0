"""SNIP: how much the loss changes when a connection is taken away."""

import torch
from torch import nn

from models.gradients import Batches, mean_gradients
from models.masks import Scores, prunable


def snip(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
    """|w * g|, g = dL/dw of the mean cross entropy over `batches` (Lee et al. 2019, arXiv 1810.02340).

    With a mask m multiplied to the weights, dL/dm at m = 1 is w * g. The paper divides by the sum over all weights, which
    changes no ranking. BatchNorm uses batch statistics.
    """
    params = prunable(network, head=head)
    gradients = mean_gradients(network, batches, params)
    return {name: (param.detach() * gradients[name]).abs() for name, param in params.items()}
