"""Growth: which weights a short training makes larger. Not a criterion at initialization in the strict sense: it looks ahead."""

import torch
from torch import nn

from autosparse.models.criteria.contract import ScoreFn
from autosparse.models.errors import SpecError
from autosparse.models.gradients import Batches
from autosparse.models.masks.mask import Mask, Scores, prunable


def growth(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
    """abs(w_k) - abs(w_0) after the k steps of `batches.look_ahead`: magnitude increase (Zhou et al. 2019, arXiv 1905.01067).

    Raises SpecError where the batches cannot look ahead.
    """
    return growth_under(None)(network, batches, generator, head=head, density=density)


def growth_under(mask: Mask | None) -> ScoreFn:
    """`growth` in a training of what `mask` keeps; the weights it does not keep shrink by all they have."""

    @torch.no_grad()
    def grown(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
        look_ahead = getattr(batches, "look_ahead", None)
        if look_ahead is None:
            raise SpecError("scoring.lookahead_steps: 0 is not allowed; allowed: >= 1 for a method that looks ahead")
        with torch.enable_grad():
            ahead = prunable(look_ahead(network, mask), head=head)
        return {name: ahead[name].detach().abs() - weight.detach().abs() for name, weight in prunable(network, head=head).items()}

    return grown
