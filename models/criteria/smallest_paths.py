"""The rules of thumb that a learned scorer has to beat: small weights grow, so keep the smallest, on strong paths.

Our own, from no paper: each is the cut of the recipes' scorer with -abs(w) in the place of what it learned.
"""

import torch
from torch import nn

from autosparse.models.criteria.growth import growth_under
from autosparse.models.criteria.paths import Paths
from autosparse.models.gradients import Batches
from autosparse.models.masks.mask import Scores, prunable
from autosparse.models.masks.reparametrized import weights
from autosparse.models.specs.scorer_heads import CHAMPION_HEAD

HEAD = Paths.of(CHAMPION_HEAD)  # what differs from the recipes' scorer is the ranking alone


def smallest_paths(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
    """-abs(w) ranked inside each layer and cut by paths: the control of `scorer`.

    Of `batches` only the image shape counts. Ranks as in `synflow`; raises DivergedError when the flow is beyond float64.
    """
    return HEAD.criterion(_smallest)(network, batches, generator, head=head, density=density)


def growth_paths(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
    """What grows most among a fifth of the weights, chosen by `smallest_paths`, cut by paths: the control of `scorer_growth`.

    Ranks as in `synflow`. Raises SpecError where the batches cannot look ahead, DivergedError when the flow is beyond float64.
    """
    return HEAD.looking_ahead(growth_under, _smallest)(network, batches, generator, head=head, density=density)


def _smallest(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
    return {name: -weight.abs() for name, weight in weights(network, prunable(network, head=head)).items()}
