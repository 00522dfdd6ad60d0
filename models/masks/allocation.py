"""From scores to masks: how many weights in all, how many per layer, which ones. Counts are exact, ties go by index."""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from autosparse.models.errors import DivergedError, not_allowed, unknown_name
from autosparse.models.masks.mask import Mask, Scores

HEAD_DENSITY = 0.2  # least density of the last linear layer in uniform+


def keep_count(density: float, total: int) -> int:
    """How many of `total` weights a density keeps: rounded half up, at least one. Raises SpecError outside (0, 1]."""
    if not 0 < density <= 1:
        raise not_allowed("density", density, "> 0 and <= 1")
    return max(1, math.floor(density * total + 0.5))


def global_topk(scores: Scores, density: float, *, floor: int = 0, alive: Mask | None = None) -> Mask:
    """Keep the highest scores of the whole network: exactly `keep_count(density, all weights)` of them.

    Only weights of `alive` may be kept (None = all); each layer keeps at least min(`floor`, alive weights in it). Of equal
    scores the one with the lower index in the order of `scores` is kept, so masks of falling densities are nested.
    Raises SpecError when `alive` holds too few weights or the floors ask for too many, DivergedError on a NaN score.
    """
    flat, candidates, layers = _flatten(scores, alive)
    count = keep_count(density, flat.numel())
    _, least = _bounds(candidates, layers, count, floor)
    kept = torch.zeros_like(candidates)
    for layer, fewest in zip(layers, least, strict=True):
        _keep_best(kept[layer], flat[layer], candidates[layer], fewest)
    _keep_best(kept, flat, candidates & ~kept, count - sum(least))
    return _unflatten(kept, layers, scores, count)


def erk_densities(shapes: Mapping[str, Sequence[int]], density: float) -> dict[str, float]:
    """Erdos-Renyi-kernel densities of layers with these weight shapes (Evci et al. 2020, arXiv 1911.11134).

    A layer's density is proportional to (in + out + kh + kw) / (in * out * kh * kw), so its kept weights to the sum of its
    dimensions. Layers that reach density 1 stay there and the others take what they cannot hold.
    """
    sizes = [math.prod(shape) for shape in shapes.values()]
    filled = _fill([sum(shape) for shape in shapes.values()], [0] * len(sizes), sizes, density * sum(sizes))
    return {name: amount / size for name, amount, size in zip(shapes, filled, sizes, strict=True)}


def erk_topk(scores: Scores, density: float, *, floor: int = 0, alive: Mask | None = None) -> Mask:
    """Keep the highest scores within each layer, layers filled by `erk_densities`; the total is as exact as in `global_topk`.

    Layer counts are rounded by largest remainder. `floor`, `alive`, ties and errors are those of `global_topk`.
    """
    flat, candidates, layers = _flatten(scores, alive)
    count = keep_count(density, flat.numel())
    most, least = _bounds(candidates, layers, count, floor)
    shares = _fill([sum(score.shape) for score in scores.values()], least, most, count)
    kept = torch.zeros_like(candidates)
    for layer, keep in zip(layers, _round_to(shares, count), strict=True):
        _keep_best(kept[layer], flat[layer], candidates[layer], keep)
    return _unflatten(kept, layers, scores, count)


def by_layer(scores: Scores, densities: Mapping[str, float]) -> Mask:
    """Keep the highest scores within each layer at the density given for it by name (0 to 1); layers without one stay whole.

    A layer of n weights keeps its density times n, rounded half up. Raises SpecError for the name of no layer.
    """
    for name in densities:
        if name not in scores:
            raise unknown_name("density", name, scores)
    mask = {}
    for name, score in scores.items():
        flat, layer, _ = _flatten({name: score}, None)
        kept = torch.zeros_like(layer)
        _keep_best(kept, flat, layer, math.floor(densities.get(name, 1.0) * flat.numel() + 0.5))
        mask[name] = kept.view(score.shape)
    return mask


def uniform_topk(scores: Scores, density: float, *, floor: int = 0, alive: Mask | None = None) -> Mask:
    """Keep the highest scores within each layer, every layer at `density` as nearly as whole weights allow.

    The r-th best weight (from 0) of a layer of n comes with the quotient (r + 1/2) / n, and the lowest quotients of the network
    are kept (Webster's rounding; of equal ones the lower index). Therefore the total is exact and, other than with largest
    remainders, masks of falling densities are nested. A layer with too few weights of `alive` leaves its share to the others.
    `floor` and errors are those of `global_topk`.
    """
    return global_topk(_quotients(scores, alive), density, floor=floor, alive=alive)


def uniform_plus_topk(scores: Scores, density: float, *, floor: int = 0, alive: Mask | None = None) -> Mask:
    """`uniform_topk` with the first convolution dense and the last linear layer at least 20 % dense.

    Uniform+ of Gale et al. 2019, arXiv 1902.09574 (section 5.3 [unverified]): the total stays exact, the other layers share the
    rest at one density. Layers are known by the shapes of their scores: convolutions have more than two dimensions, the last
    linear layer is the classifier only where that is prunable. At a density too low for both promises the convolution comes
    first, then the linear layer, and other layers get nothing beyond their `floor`. Errors are those of `global_topk`.
    """
    quotients = _quotients(scores, alive)
    convolutions = [name for name, score in scores.items() if score.dim() > 2]
    linear = [name for name, score in scores.items() if score.dim() == 2]
    for name in linear[-1:]:
        promised = quotients[name] > -HEAD_DENSITY
        quotients[name] += promised  # (0, 1): before all that is not promised
    for name in convolutions[:1]:
        quotients[name] += 2
    return global_topk(quotients, density, floor=floor, alive=alive)


def shares_from_top(values: Tensor) -> Tensor:
    """(n,) -> float64 (n,): (place - 1/2) / n of each value, the highest first, of equals the one with the lower index."""
    order = values.sort(descending=True, stable=True).indices
    shares = torch.empty(len(values), dtype=torch.float64, device=values.device)
    shares[order] = (torch.arange(len(values), dtype=torch.float64, device=values.device) + 0.5) / len(values)
    return shares


def best(values: Tensor, count: int) -> Tensor:
    """Which of the values (n,) are the `count` > 0 highest, of equals those with the lower index."""
    last = values.numel() - count
    if values.dtype == torch.bfloat16:
        values = values.float()  # numpy knows no bfloat16; the order is the same
    # Several times faster than torch.kthvalue on the CPU; on a GPU a sort costs less than the way to the CPU.
    threshold = float(values.sort().values[last] if values.is_cuda else np.partition(values.cpu().numpy(), last)[last])
    chosen = values > threshold
    ties = (values == threshold).nonzero().squeeze(1)
    chosen[ties[: count - int(chosen.count_nonzero())]] = True
    return chosen


def _quotients(scores: Scores, alive: Mask | None) -> Scores:
    """-(r + 1/2) / n of each weight, float64, r its rank from the best among the n of its layer, dead ones last."""
    flat, candidates, layers = _flatten(scores, alive)
    quotients = {}
    for layer, (name, score) in zip(layers, scores.items(), strict=True):
        by_score = flat[layer].sort(descending=True, stable=True).indices
        order = by_score[candidates[layer][by_score].sort(descending=True, stable=True).indices]
        ranks = torch.empty(len(order), dtype=torch.float64, device=order.device)
        ranks[order] = torch.arange(len(order), dtype=torch.float64, device=order.device)
        quotients[name] = -(ranks.view(score.shape) + 0.5) / len(order)
    return quotients


def _flatten(scores: Scores, alive: Mask | None) -> tuple[Tensor, Tensor, list[slice]]:
    for name, score in scores.items():
        if score.isnan().any():
            raise DivergedError(f"scores.{name}: NaN is not allowed; allowed: numbers (-inf too)")
    flat = torch.cat([score.reshape(-1) for score in scores.values()])
    ends = list(accumulate(score.numel() for score in scores.values()))
    layers = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
    if alive is None:
        return flat, torch.ones_like(flat, dtype=torch.bool), layers
    return flat, torch.cat([alive[name].reshape(-1) for name in scores]).to(flat.device), layers


def _unflatten(kept: Tensor, layers: list[slice], scores: Scores, count: int) -> Mask:
    assert int(kept.count_nonzero()) == count, "a mask of another size than asked"
    # Copies: views would make every layer carry the whole network's storage along.
    return {name: kept[layer].clone().view(score.shape) for layer, (name, score) in zip(layers, scores.items(), strict=True)}


def _bounds(candidates: Tensor, layers: list[slice], count: int, floor: int) -> tuple[list[int], list[int]]:
    """(most, least) weights that each layer can and must keep, checked against the count asked for."""
    most = [int(candidates[layer].count_nonzero()) for layer in layers]
    least = [min(floor, available) for available in most]
    if sum(most) < count:
        raise not_allowed("density", count / candidates.numel(), f"at most that of the alive weights, {sum(most) / candidates.numel()}")
    if sum(least) > count:
        raise not_allowed("min_per_layer", floor, f"floors that fit into the {count} weights kept in {len(layers)} layers")
    return most, least


def _keep_best(kept: Tensor, scores: Tensor, candidates: Tensor, count: int) -> None:
    """Set `kept` (in place) at the `count` highest scores among the candidates, lower index first among equals."""
    if count > 0:
        kept.masked_scatter_(candidates, best(scores.masked_select(candidates), count))


def _fill(shares: Sequence[float], least: Sequence[int], most: Sequence[int], total: float) -> list[float]:
    """clamp(scale * share, least, most) with the largest scale whose sum stays within `total`, found by bisection."""
    if sum(most) <= total:
        return list(most)

    def at(scale: float) -> list[float]:
        return [min(max(scale * share, low), high) for share, low, high in zip(shares, least, most, strict=True)]

    low, high = 0.0, max(bound / share for share, bound in zip(shares, most, strict=True))
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if sum(at(middle)) <= total else (low, middle)
    return at(low)


def _round_to(amounts: list[float], total: int) -> list[int]:
    """Whole numbers that sum to `total` (largest remainder; lower index first among equals)."""
    counts = [math.floor(amount) for amount in amounts]
    by_remainder = sorted(range(len(amounts)), key=lambda index: counts[index] - amounts[index])
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    return counts
