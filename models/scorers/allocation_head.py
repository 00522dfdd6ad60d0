"""The scorer's second head: how dense each layer should be, learned from the layer densities of iterative tickets.

A layer's density follows the network's by a line in logarithms, ln d = slope * ln D + offset, and both numbers are linear in what
is known of a layer: fan-in, fan-out, depth, linear or not, 1x1 or not. A weight that stands at the share q from the top of its
layer is kept as long as q <= d(D), that is down to ln D = (ln q - offset) / slope. That density of death is comparable between
layers, so one score vector serves all densities, exact counts are left to `global_topk`, and masks are nested.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autosparse.models.criteria.contract import ScoreFn
from autosparse.models.errors import DataError
from autosparse.models.features import LayerFacts, layer_facts
from autosparse.models.gradients import Batches
from autosparse.models.masks.allocation import shares_from_top
from autosparse.models.masks.mask import Mask, Scores, prunable
from autosparse.models.specs.fields import from_plain, to_plain

CONTEXT = ("one", "log_fan_in", "log_fan_out", "depth", "linear", "pointwise")
RIDGE = 0.01  # per example, on columns of spread 1
LEAST_SLOPE = 0.02  # a layer that never loses weights in the tickets still loses them in the end


@dataclass(frozen=True, kw_only=True, slots=True)
class Allocation:
    """`slopes` and `offsets` are coefficients over CONTEXT; `final_density` is that of the tickets, the unit of the scores.

    `sharpness` says how far the ranking inside a layer counts: None = as it is; a number = Gumbel noise on the rank (0 to 1) times
    that number, 0.0 = at random.
    """

    slopes: tuple[float, ...]
    offsets: tuple[float, ...]
    final_density: float
    sharpness: float | None = None

    def line(self, facts: LayerFacts) -> tuple[float, float]:
        """(slope, offset) of a layer."""
        context = _context(facts)
        return max(float(np.dot(self.slopes, context)), LEAST_SLOPE), float(np.dot(self.offsets, context))

    def comparable(self, raw: Tensor, facts: LayerFacts, generator: torch.Generator | None = None) -> Tensor:
        """Scores of a layer, of any shape and scale -> float64 of that shape, comparable with those of other layers.

        1.0 = kept down to the tickets' final density, as in `labels.label_target`. Without a generator there is no noise.
        """
        slope, offset = self.line(facts)
        flat = raw.detach().reshape(-1).double().cpu()
        if self.sharpness is not None and generator is not None:
            uniform = torch.rand(len(flat), generator=generator, dtype=torch.float64).clamp_(1e-12, 1 - 1e-12)
            flat = self.sharpness * (1 - shares_from_top(flat)) - (-uniform.log()).log()
        scores = (shares_from_top(flat).log() - offset) / slope / math.log(self.final_density)
        return scores.view(raw.shape).to(raw.device)

    def criterion(self, score: ScoreFn) -> ScoreFn:
        """The learned layer densities, filled by another score's ranking inside each layer."""

        def two_heads(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
            raw = score(network, batches, generator, head=head, density=density)
            params = prunable(network, head=head)
            facts = layer_facts(params, {name: torch.zeros_like(param) for name, param in params.items()})
            return {layer.name: self.comparable(raw[layer.name], layer, generator) for layer in facts}

        return two_heads

    def looking_ahead(self, growth_under: Callable[[Mask | None], ScoreFn], learned: ScoreFn) -> ScoreFn:
        """The same filled by growth, a ranking to be trusted, so without noise."""
        return replace(self, sharpness=None).criterion(growth_under(None))

    def to_plain(self) -> dict[str, Any]:
        """The head as JSON-like data."""
        return {"kind": "learned", **to_plain(self)}

    @classmethod
    def from_plain(cls, data: Any) -> "Allocation":
        """The head out of JSON-like data. Raises DataError on a missing or unknown field or another number of coefficients."""
        try:
            head = from_plain(cls, {name: value for name, value in data.items() if name != "kind"}, "scorer.allocation")
        except ValueError as error:
            raise DataError(str(error)) from None
        if {len(head.slopes), len(head.offsets)} != {len(CONTEXT)}:
            raise DataError(f"scorer.allocation: {len(head.slopes)} coefficients are not allowed; allowed: {len(CONTEXT)}")
        return head


def fit_allocation(
    examples: Sequence[tuple[LayerFacts, float, float]],
    *,
    final_density: float,
    sharpness: float | None = None,
    tilt: Sequence[float] = (),
) -> Allocation:
    """Fit the head to (layer, density D of its network, density d of the layer) by ridge regression on ln d.

    `tilt` is added to the slopes afterwards. An empty layer counts as half a weight. Raises DataError without an example of D < 1.
    """
    rows, target = [], []
    for facts, whole, layer in examples:
        if whole < 1:
            context = np.array(_context(facts))
            rows.append(np.concatenate((context * math.log(whole), context)))
            target.append(math.log(max(layer, 0.5 / facts.numel)))
    if not rows:
        raise DataError("scorer.allocation: no cut below density 1 to learn from; allowed: at least one IRP round")
    design, values = np.array(rows), np.array(target)
    size = np.sqrt((design**2).mean(0))
    size[size == 0] = 1.0
    scaled = design / size
    penalty = RIDGE * len(values) * np.eye(scaled.shape[1])
    penalty[0, 0] = 0.0  # a uniform network, ln d = ln D, is what the rest departs from
    base = design[:, 0]
    solved = np.linalg.solve(scaled.T @ scaled + penalty, scaled.T @ (values - base)) / size
    solved[0] += 1.0
    slopes, offsets = np.split(solved, 2)
    slopes = slopes + np.array(tilt or np.zeros(len(CONTEXT)))
    return Allocation(
        slopes=tuple(map(float, slopes)), offsets=tuple(map(float, offsets)), final_density=final_density, sharpness=sharpness
    )


def _context(facts: LayerFacts) -> tuple[float, ...]:
    pointwise = facts.kind == "conv" and math.prod(facts.shape[2:]) == 1
    return (
        1.0,
        math.log(facts.fan_in),
        math.log(facts.fan_out),
        facts.depth,
        float(facts.kind == "linear"),
        float(pointwise),
    )
