"""The rule of thumb that a learned scorer has to beat: small weights grow, so keep the smallest, on strong paths."""

import torch
from torch import nn

from models.criteria.magnitude import magnitude
from models.gradients import Batches
from models.masks import Scores
from models.path_allocation import Paths

CONTRAST = 1.0  # of the recipes' scorer: what differs is the ranking alone


def smallest_paths(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
    """-abs(w) ranked inside each layer and cut by paths, as the scorer of the recipes is: its control without learning.

    Our own rule, from no paper. Of `batches` only the image shape counts. Ranks as in `synflow`; raises DivergedError when the
    flow is beyond float64.
    """
    by_paths = Paths(contrast=CONTRAST, contrast_ahead=CONTRAST, blend=0.0).criterion(_smallest)
    return by_paths(network, batches, generator, head=head, density=density)


def _smallest(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
    return {name: -size for name, size in magnitude(network, batches, generator, head=head, density=density).items()}
