"""Iteration as a schedule around a score function: the one place where masks of many iterations become one score vector."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from autosparse.models.criteria.contract import ScoreFn
from autosparse.models.errors import DivergedError, not_allowed
from autosparse.models.gradients import Batches
from autosparse.models.masks.allocation import best, global_topk, keep_count
from autosparse.models.masks.mask import Mask, Scores, apply_, full, prunable
from autosparse.models.masks.reparametrized import copied
from autosparse.models.schedules import density_after


def iterated(score: ScoreFn, iterations: int, *, revive: bool = False) -> ScoreFn:
    """`score` taken again and again on the way to `density`: the ranks of `ranks_of_death`,
    or with `revive` of `ranks_with_revival`.

    Iteration k scores a copy of the network whose pruned weights are zero, on the same batches, and keeps the best
    `density ** ((k + 1) / iterations)`. Without `revive` any score will do, a fitted scorer too, and a pruned weight stays
    pruned. A score that does not see the other weights, as magnitude, ranks as in one shot.

    With `revive` every weight competes in every iteration (FORCE). A weight that is zero would count for nothing in most
    scores, therefore `score` is then one per unit of weight, as |g|, and what counts is |w| of the dense network times it.
    Raises SpecError unless there is at least one iteration.
    """
    if iterations < 1:
        raise not_allowed("iterations", iterations, ">= 1")

    def scored(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
        dense = prunable(network, head=head)
        pruned = copied(network)
        weights = prunable(pruned, head=head)

        def score_at(alive: Mask) -> Scores:
            with torch.no_grad():
                for name, weight in weights.items():
                    weight.copy_(dense[name])
            apply_(pruned, alive)
            values = score(pruned, batches, generator, head=head, density=density)
            return {name: dense[name].detach().abs() * value for name, value in values.items()} if revive else values

        return (ranks_with_revival if revive else ranks_of_death)(score_at, dense, iterations, density)

    return scored


def ranks_of_death(score_at: Callable[[Mask], Scores], params: Mapping[str, Tensor], iterations: int, density: float) -> Scores:
    """Rank of each weight's death on the exponential schedule to `density`: ranks 0 to N - 1, float64, shaped like `params`.

    Iteration k takes the scores of all weights at the mask of the iteration before and keeps `density ** ((k + 1) /
    iterations)` of all weights. A weight ranks by the iteration that removed it, then by its score there (of equals the
    lower index is higher), so the top k of this one vector are nested masks: at `density` the mask of the last iteration, at a
    larger one that of the same schedule stopped on its way. `score_at` is given one mask again and again, which changes in place.
    Raises DivergedError on a NaN score.
    """
    sizes = [param.numel() for param in params.values()]
    total, device = sum(sizes), next(iter(params.values())).device
    alive = torch.ones(total, dtype=torch.bool, device=device)
    mask = {name: part.view(params[name].shape) for name, part in zip(params, alive.split(sizes), strict=True)}
    index = torch.int32 if total <= torch.iinfo(torch.int32).max else torch.int64  # half the memory
    places, ranks, dead = torch.arange(total, dtype=index, device=device), torch.empty(total, dtype=index, device=device), 0
    for iteration in range(iterations):
        values = alive_scores(score_at(mask), mask)
        stays = best(values, keep_count(density_after(iteration, iterations, density), total))
        leave = (~stays).nonzero().squeeze(1)
        dead += _rank_from(ranks, dead, places[leave], values[leave])
        alive.masked_scatter_(alive.clone(), stays)
        places = places.masked_select(stays)
    _rank_from(ranks, dead, places, values.masked_select(stays))
    parts = ranks.split(sizes)
    return {name: part.to(torch.float64).view(params[name].shape) for name, part in zip(params, parts, strict=True)}


def ranks_with_revival(score_at: Callable[[Mask], Scores], params: Mapping[str, Tensor], iterations: int, density: float) -> Scores:
    """`ranks_of_death` where a removed weight may be chosen again.

    Its last removal counts: the final mask comes first, by the scores of the last iteration; then what the last iteration removed,
    and so on; last, what was never chosen. The top k at `density` are exactly the last iteration's mask. Masks of larger densities
    hold it and the weights that left the schedule's masks last; those masks are not nested in each other, so at the density of
    iteration k this need not be that iteration's mask.
    """
    alive = full(params)
    total = sum(param.numel() for param in params.values())
    device = next(iter(params.values())).device
    death = torch.full((total,), iterations, device=device)
    last_score = torch.zeros(total, dtype=torch.float64, device=device)
    for iteration in range(iterations):
        scores = score_at(alive)
        kept = global_topk(scores, density_after(iteration, iterations, density))
        values, stays = _flat(scores).double(), _flat(kept)
        leaves = _flat(alive) & ~stays
        death = torch.where(leaves, iteration, torch.where(stays, iterations, death))
        last_score = torch.where(leaves | stays, values, last_score)
        alive = kept
    by_score = last_score.sort(descending=True, stable=True).indices
    best_first = by_score[death[by_score].sort(descending=True, stable=True).indices]
    return as_ranks(best_first, params)


def alive_scores(scores: Scores, mask: Mask) -> Tensor:
    """The scores of what the mask keeps, in one vector; `scores` is emptied on the way. Raises DivergedError on a NaN."""
    parts = []
    for name in list(scores):
        part = scores.pop(name)
        if part.isnan().any():
            raise DivergedError(f"scores.{name}: NaN is not allowed; allowed: numbers (-inf too)")
        parts.append(part.masked_select(mask[name]))
    return torch.cat(parts)


def _rank_from(ranks: Tensor, first: int, places: Tensor, values: Tensor) -> int:
    """Give the weights at `places`, of rising index, the ranks from `first` up by their scores; returns how many they are."""
    order = values.sort(descending=True, stable=True).indices
    count = len(order)
    ranks[places[order].long()] = torch.arange(first + count - 1, first - 1, -1, dtype=ranks.dtype, device=ranks.device)
    return count


def as_ranks(best_first: Tensor, params: Mapping[str, Tensor]) -> Scores:
    """Scores N - 1 to 0, float64, of the flat weight indices (over all of `params`, in order) from the best to the worst."""
    count = len(best_first)
    ranks = torch.empty(count, dtype=torch.float64, device=best_first.device)
    ranks[best_first] = torch.arange(count - 1, -1, -1, dtype=torch.float64, device=best_first.device)
    parts = ranks.split([param.numel() for param in params.values()])
    # Copies: views would make every layer carry the whole network's storage along.
    return {name: part.clone().view(param.shape) for part, (name, param) in zip(parts, params.items(), strict=True)}


def _flat(values: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([value.reshape(-1) for value in values.values()])
