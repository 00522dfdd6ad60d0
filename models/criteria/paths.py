"""The scorer's cut by paths: a weight counts by its rank in its layer, and what competes is the strength of whole paths.

Ranked one by one, even good scores pile up in few channels and leave others without a way to the output; at high sparsity that
costs more than the ranking gains. SynFlow's iterations know which weights carry paths, but only by abs(w). Here they run on
strengths exp(contrast * rank), with the rank of a learned score (0 = lowest, 1 = highest of its layer) and the layer's mean abs(w) as
its scale. How dense each layer gets comes out of the competition.

Where the scorer looks ahead, it first chooses the candidates, a network many times as dense as the one wanted; that is what trains for
a while, from the weights it would start with, and what grows there is ranked and cut by paths once more.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from autosparse.models.criteria.contract import ScoreFn
from autosparse.models.criteria.synaptic_flow import ranks_by_flow
from autosparse.models.errors import DataError
from autosparse.models.features import LayerFacts
from autosparse.models.gradients import Batches
from autosparse.models.masks.allocation import global_topk, shares_from_top
from autosparse.models.masks.linearised import opened
from autosparse.models.masks.mask import Mask, Scores, prunable
from autosparse.models.masks.reparametrized import weights
from autosparse.models.specs.fields import from_plain, to_plain
from autosparse.models.specs.scorer_heads import PathsHead

LEAST_CONTRAST = 0.5  # while nearly all weights are alive
FAINT = 1e-9  # of a weight that is no candidate: any path of candidates alone outweighs it


@dataclass(frozen=True, kw_only=True, slots=True)
class Paths(PathsHead):
    """The head at work; what its settings mean stands there."""

    @classmethod
    def of(cls, head: PathsHead) -> "Paths":
        """With the settings of a spec."""
        return cls(**asdict(head))

    def at(self, density: float) -> float:
        """The exponent of the ranks when so many weights are left."""
        return LEAST_CONTRAST + self.contrast * math.log(1 / density)

    def criterion(self, score: ScoreFn, among: Mask | None = None, hubs: float = 1.0) -> ScoreFn:
        """`score` as it ranks inside layers, cut by paths; ranks of death as in SynFlow: one score vector for all densities.

        The weights of `among` outlive all others, and are ranked among themselves. `hubs` as in `ranks_by_flow`.
        """

        def by_paths(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
            raw = score(network, batches, generator, head=head, density=density)
            ranks = {name: rank_among(values, among[name]) if among else rank_in_layer(values) for name, values in raw.items()}
            used = {name: opened(weight.abs()) for name, weight in weights(network, prunable(network, head=head)).items()}
            ranks = {name: rank.masked_fill(used[name] == 0, -math.inf) for name, rank in ranks.items()}  # zeros stay zeros
            sizes = {name: weight.mean() for name, weight in used.items()}
            strengths = partial(self._strengths, ranks, sizes, among)
            return ranks_by_flow(network, strengths, batches, density=density, hubs=hubs)

        return by_paths

    def looking_ahead(self, growth_under: Callable[[Mask | None], ScoreFn], learned: ScoreFn) -> ScoreFn:
        """Paths of candidates that grow, `blend` of the learned ranking mixed in; `growth_under` is how a mask makes them grow."""
        ahead = replace(self, contrast=self.contrast_ahead)

        def grown(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
            chosen = None
            if self.candidates < 1:
                first = self.criterion(learned)(network, batches, generator, head=head, density=self.candidates)
                chosen = global_topk(first, self.candidates, floor=1)
            by_paths = ahead.criterion(blended(growth_under(chosen), learned, self.blend), chosen, self.hubs_ahead)
            return by_paths(network, batches, generator, head=head, density=density)

        return grown

    def comparable(self, raw: Tensor, facts: LayerFacts) -> Tensor:
        """Where only layers are at hand, not the network: the ranking as it is."""
        return raw

    def _strengths(self, ranks: Scores, sizes: dict[str, Tensor], among: Mask | None, alive: float) -> Scores:
        raw = {name: (self.at(alive) * rank).exp() for name, rank in ranks.items()}
        scaled = {name: values * (sizes[name] / values.mean()) for name, values in raw.items()}
        return {name: torch.where(among[name], values, FAINT * values) for name, values in scaled.items()} if among else scaled

    def to_plain(self) -> dict[str, Any]:
        """The head as JSON-like data."""
        return {"kind": "paths", **to_plain(self)}

    @classmethod
    def from_plain(cls, data: Any) -> "Paths":
        """The head out of JSON-like data. Raises DataError on a missing or unknown field."""
        try:
            return from_plain(cls, {name: value for name, value in data.items() if name != "kind"}, "scorer.allocation")
        except ValueError as error:
            raise DataError(str(error)) from None


def rank_in_layer(values: Tensor) -> Tensor:
    """Scores of one layer -> float64 ranks of the same shape, (place + 1/2) / n from the lowest up; of equals the first is higher.

    Where all are equal, as in a head that starts at zero, they say nothing: 1/2 everywhere.
    """
    if bool((values == values.reshape(-1)[0]).all()):
        return torch.full(values.shape, 0.5, dtype=torch.float64, device=values.device)
    return 1 - shares_from_top(values.detach().reshape(-1)).view(values.shape)


def rank_among(values: Tensor, among: Tensor) -> Tensor:
    """The ranks of the weights in `among` by themselves, float64 of the shape of `values`; 0.0 for the others."""
    ranks = torch.zeros(values.shape, dtype=torch.float64, device=values.device)
    ranks[among] = rank_in_layer(values[among])
    return ranks


def blended(score: ScoreFn, other: ScoreFn, share: float) -> ScoreFn:
    """(1 - share) of one ranking and `share` of another inside each layer, both as normal scores; 0.0 = the first alone."""

    def both(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
        first, second = (score_fn(network, batches, generator, head=head, density=density) for score_fn in (score, other))
        return {
            name: (1 - share) * torch.special.ndtri(rank_in_layer(values)) + share * torch.special.ndtri(rank_in_layer(second[name]))
            for name, values in first.items()
        }

    return both if share else score
