"""The criteria that look at no data: random, and the magnitude of the weights."""

import torch
from torch import nn

from models.gradients import Batches
from models.masks import Scores, prunable


def random(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
    """Independent uniform scores in [0, 1) from `generator`: every mask of a given size is equally likely."""
    return {
        name: torch.rand(param.shape, generator=generator, device=generator.device).to(param.device)
        for name, param in prunable(network, head=head).items()
    }


def magnitude(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
    """|w|, compared over all layers."""
    return {name: param.detach().abs() for name, param in prunable(network, head=head).items()}
