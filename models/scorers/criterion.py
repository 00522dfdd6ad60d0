"""A fitted scorer as one criterion among the others."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from autosparse.models.criteria.contract import ScoreFn
from autosparse.models.criteria.growth import growth_under
from autosparse.models.errors import not_allowed
from autosparse.models.features import LayerFacts, feature_matrix, layer_facts
from autosparse.models.gradients import Batches, mean_gradients
from autosparse.models.masks.mask import Scores, prunable

CHUNK_ROWS = 32_768  # of a scorer that does not say how many rows it takes at once

Watch = Callable[[Mapping[str, Tensor], Mapping[str, Tensor], Sequence[LayerFacts]], None]  # is shown weights, gradients and layers


def as_criterion(scorer: nn.Module, *, chunk: int | None = None, watch: Watch | None = None) -> ScoreFn:
    """The score function of a fitted scorer; one with an allocation head ranks inside layers, and the head says what that is worth.

    See `ranking` for what the scorer must be.
    """
    learned, allocation = ranking(scorer, chunk=chunk, watch=watch), getattr(scorer, "allocation", None)
    return allocation.criterion(learned) if allocation else learned


def looking_ahead(scorer: nn.Module, *, watch: Watch | None = None) -> ScoreFn:
    """The score function of a fitted scorer with an allocation head, on batches that can look ahead.

    `watch` is shown what the ranking sees, where the head asks for a ranking at all.

    Raises SpecError where the scorer has no such head, or the batches cannot.
    """
    allocation = getattr(scorer, "allocation", None)
    if allocation is None:
        raise not_allowed("scorer.allocation", "global", "'learned' or 'paths' for a scorer that looks ahead")
    return allocation.looking_ahead(growth_under, ranking(scorer, watch=watch))


def ranking(scorer: nn.Module, *, chunk: int | None = None, watch: Watch | None = None) -> ScoreFn:
    """What the scorer makes of each weight's features, without its allocation head.

    The scorer is put into eval mode and must be on the network's device. Gradients are those of the feature data set: the mean over
    the batches, BatchNorm in train mode. The network is left as it was, memory beyond the gradients is that of `chunk` rows. `watch`
    is shown what the scorer is about to see. Raises DivergedError where a weight or gradient is not finite.
    """
    scorer.eval()

    def learned(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
        params, gradients, facts = inputs(network, batches, head=head)
        if watch:
            watch(params, gradients, facts)
        return {layer.name: score_weights(scorer, params[layer.name], gradients[layer.name], layer, chunk=chunk) for layer in facts}

    return learned


def inputs(
    network: nn.Module, batches: Batches, *, head: bool = True
) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor], list[LayerFacts]]:
    """What features are made of: prunable weights, their mean gradients, what is known of the layers."""
    params = prunable(network, head=head)
    gradients = mean_gradients(network, batches, params)
    return params, gradients, layer_facts(params, gradients)


@torch.no_grad()
def score_weights(scorer: nn.Module, weight: Tensor, gradient: Tensor, facts: LayerFacts, *, chunk: int | None = None) -> Tensor:
    """Scores of one layer, float32 of the shape of `weight`, taken `chunk` rows at a time (default: what the scorer asks for)."""
    rows = chunk or getattr(scorer, "chunk_rows", CHUNK_ROWS)
    weights, gradients = weight.reshape(-1).split(rows), gradient.reshape(-1).split(rows)
    parts = [scorer(feature_matrix(w, g, facts)) for w, g in zip(weights, gradients, strict=True)]
    return torch.cat(parts).view(weight.shape)
