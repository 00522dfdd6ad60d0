"""How well scores order weights as the survival labels do, pooled and within layers.

Both views are needed: a score that only knows the scale of each layer can have a high pooled correlation.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from autosparse.models.errors import DivergedError, not_allowed
from autosparse.models.scorers.labels import label_target


def spearman(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation of two flat tensors, ties with their average rank; 0.0 where either is constant or empty."""
    if len(a) == 0:
        return 0.0
    left, right = _centred_ranks(a), _centred_ranks(b)
    size = float(left.norm() * right.norm())
    return float(left @ right) / size if size else 0.0


def _centred_ranks(values: Tensor) -> Tensor:
    """Average ranks about their mean, (n,) float64."""
    ordered, order = values.sort()
    _, group, sizes = ordered.unique_consecutive(return_inverse=True, return_counts=True)
    middle = sizes.cumsum(0).double() - (sizes.double() + 1) / 2 - (len(values) - 1) / 2
    return torch.empty(len(values), dtype=torch.float64, device=values.device).scatter_(0, order, middle[group])


def _best_first(scores: Tensor, labels: Tensor) -> Tensor:
    return labels[scores.sort(descending=True, stable=True).indices]


def _found(ordered: Tensor, cut: int) -> int:
    ticket = ordered >= cut
    return int(ticket[: int(ticket.sum())].sum())


def evaluate_scorer(
    scores: Mapping[Any, Tensor], survived: Mapping[Any, Tensor], rounds: int, *, cuts: Sequence[int] | None = None
) -> dict[str, Any]:
    """The report on held-out weights, from one tensor of scores and one of rounds survived per layer (same keys, any shape).

    - `rows`, `mse` of the scores against the label target, `label_variance` of that target, `r2` = 1 - mse / label_variance.
    - `spearman_pooled` over all rows; `spearman_within_layer`, the layers' mean weighted by their size.
    - `overlap`, `overlap_within_layer`: density -> share of the ticket of that density found by as many top scores, taken over
      all rows or in each layer as many as the ticket keeps there, ties by index. One density, written with four digits, per entry of `cuts`
      (default: every cut); a density is that of the rows given, not of the whole network.

    Fixed criteria such as abs(w) go through the same function; only mse and r2 mean nothing for them. What is undefined (a
    constant score or label, an empty ticket) counts as 0.0, never NaN. Raises SpecError when keys
    differ or there are no rows, DivergedError where a score is not finite.
    """
    if not scores or scores.keys() != survived.keys():
        raise not_allowed("scores", list(scores), f"exactly the layers that have labels: {list(survived)}")
    flat = [(scores[key].flatten(), survived[key].flatten()) for key in scores]
    pooled, labels = torch.cat([score for score, _ in flat]), torch.cat([label for _, label in flat])
    mse = float((pooled.double() - label_target(labels, rounds)).square().mean())
    if not math.isfinite(mse):
        raise DivergedError(f"scores: mean squared error {mse} is not allowed; allowed: finite scores")
    variance = float(labels.double().var(correction=0)) / rounds**2
    ordered, ordered_within = _best_first(pooled, labels), [_best_first(*pair) for pair in flat]
    overlap, within = {}, {}
    for cut in cuts if cuts is not None else range(1, rounds + 1):
        kept = int((labels >= cut).sum())
        density = f"{kept / len(labels):.4g}"
        overlap[density] = _found(ordered, cut) / max(kept, 1)
        within[density] = sum(_found(layer, cut) for layer in ordered_within) / max(kept, 1)
    return {
        "rows": len(labels),
        "mse": mse,
        "label_variance": variance,
        "r2": 1 - mse / variance if variance else 0.0,
        "spearman_pooled": spearman(pooled, labels),
        "spearman_within_layer": sum(len(label) * spearman(score, label) for score, label in flat) / len(labels),
        "overlap": overlap,
        "overlap_within_layer": within,
    }
