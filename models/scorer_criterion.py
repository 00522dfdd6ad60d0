"""A fitted scorer as one criterion among the others."""

import torch
from torch import Tensor, nn

from models.allocation_head import Allocation
from models.criteria.contract import ScoreFn
from models.features import LayerFacts, feature_matrix, layer_facts
from models.gradients import Batches, mean_gradients
from models.masks import Scores, prunable

CHUNK_ROWS = 32_768  # of a scorer that does not say how many rows it takes at once


def as_criterion(scorer: nn.Module, *, chunk: int | None = None) -> ScoreFn:
    """The score function of a fitted scorer, which is put into eval mode and must be on the network's device.

    Gradients are those of the feature data set: the mean over the batches, BatchNorm in train mode. The network is left as it
    was, memory beyond the gradients is that of `chunk` rows. A scorer with an allocation head gives scores of two heads. Raises
    DivergedError where a weight or gradient is not finite.
    """
    scorer.eval()
    allocation = getattr(scorer, "allocation", None)

    def learned(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
        params = prunable(network, head=head)
        gradients = mean_gradients(network, batches, params)
        facts = layer_facts(params, gradients)
        return {layer.name: score_weights(scorer, params[layer.name], gradients[layer.name], layer, chunk=chunk) for layer in facts}

    return allocated(learned, allocation) if allocation else learned


def allocated(score: ScoreFn, allocation: Allocation) -> ScoreFn:
    """The learned layer densities, filled by another score's ranking inside each layer."""

    def two_heads(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
        raw = score(network, batches, generator, head=head, density=density)
        params = prunable(network, head=head)
        facts = layer_facts(params, {name: torch.zeros_like(param) for name, param in params.items()})
        return {layer.name: allocation.comparable(raw[layer.name], layer, generator) for layer in facts}

    return two_heads


@torch.no_grad()
def score_weights(scorer: nn.Module, weight: Tensor, gradient: Tensor, facts: LayerFacts, *, chunk: int | None = None) -> Tensor:
    """Scores of one layer, float32 of the shape of `weight`, taken `chunk` rows at a time (default: what the scorer asks for)."""
    rows = chunk or getattr(scorer, "chunk_rows", CHUNK_ROWS)
    weights, gradients = weight.reshape(-1).split(rows), gradient.reshape(-1).split(rows)
    parts = [scorer(feature_matrix(w, g, facts)) for w, g in zip(weights, gradients, strict=True)]
    return torch.cat(parts).view(weight.shape)
