"""Repair: give the places of dead weights to weights that connect, at the same count."""

from typing import NamedTuple

import torch
from torch import nn

from autosparse.models.errors import not_allowed
from autosparse.models.masks import mask as masks
from autosparse.models.masks.gates import Reach, both
from autosparse.models.masks.mask import Mask, Scores
from autosparse.models.networks.calls import Shape

ROUNDS = 10


class Repaired(NamedTuple):
    """What a repair changed: `replaced` weights gave their place to as many others, `rounds` times something was changed.

    `dead` counts kept weights on no path, before and after; `layers` says how many kept weights each layer won or lost.
    """

    rounds: int
    replaced: int
    dead: tuple[int, int]
    layers: dict[str, int]


def repair(network: nn.Module, mask: Mask, scores: Scores, shape: Shape, *, floor: int = 1, rounds: int = ROUNDS) -> tuple[Mask, Repaired]:
    """The mask with its dead weights replaced by the best-scored weights that lie on a path; it keeps exactly as many.

    Each layer first gets its best `floor` weights on a path (fewer where it is smaller), then half of the dead weights, the
    worst-scored, give their places to the best of the whole network, round after round. A mask without a dead weight and
    with its floors comes back as it is. Where nothing more can be connected, or after `rounds` rounds, dead weights stay, but
    never more than before. `shape` is that of one input without the batch dimension. Raises SpecError when the floors ask for
    more weights than the mask keeps.
    """
    least = {name: min(floor, keep.numel()) for name, keep in mask.items()}
    count = masks.kept(mask)
    if sum(least.values()) > count:
        raise not_allowed("floor", floor, f"floors that fit into the {count} weights kept in {len(mask)} layers")
    scores = {name: scores[name].to(keep.device) for name, keep in mask.items()}
    reach, found, done = Reach(network, shape), mask, 0
    for left in reversed(range(rounds)):
        alive = _with_floors(reach, found, scores, least)
        missing = count - masks.kept(alive)
        if missing > 0:
            better = _reconnected(reach, alive, found, scores, missing, surely=left == 0 or missing == 1)
        else:
            better = _without_worst(alive, scores, least, -missing)
        assert masks.kept(better) == count, "a mask of another size than before"
        if masks.checksum(better) == masks.checksum(found):
            break
        found, done = better, done + 1
    record = _record(reach, mask, found, done)
    if record.dead[1] > record.dead[0]:  # floors can cost more paths than they make
        return mask, _record(reach, mask, mask, 0)
    return found, record


def _with_floors(reach: Reach, found: Mask, scores: Scores, least: dict[str, int]) -> Mask:
    """What is alive, after layers below their floor got the best weights that connect, and what those brought to life.

    Layers that wait for their turn count as open.
    """
    alive = both(found, reach.on_path(found))
    short = [name for name, keep in alive.items() if int(keep.count_nonzero()) < least[name]]
    if not short:
        return alive
    ground = dict(found)
    for place, name in enumerate(short):
        waiting = {later: torch.ones_like(found[later]) for later in short[place:]}
        candidates = reach.on_path(ground | waiting)[name] & ~alive[name]
        best = _best({name: candidates}, scores, least[name] - int(alive[name].count_nonzero()))
        ground[name] = alive[name] | best[name]
    ground = _either(ground, found)
    return both(ground, reach.on_path(ground))


def _reconnected(reach: Reach, alive: Mask, found: Mask, scores: Scores, count: int, *, surely: bool) -> Mask:
    """Add `count` weights to `alive`: the best that connect, and the best of the dead weights of `found` for the rest.

    A weight that connects together with a dead one brings both to life, so half of the dead keep their places for now.
    `surely` takes only what connects by itself.
    """
    loose = {name: keep & ~alive[name] for name, keep in found.items()}
    ground = alive if surely else _either(alive, loose)
    candidates = {name: on_path & ~ground[name] for name, on_path in reach.on_path(ground).items()}
    added = _best(candidates, scores, count if surely else (count + 1) // 2)
    return _either(_either(alive, added), _best(loose, scores, count - masks.kept(added)))


def _without_worst(mask: Mask, scores: Scores, least: dict[str, int], count: int) -> Mask:
    """Take the `count` worst weights out, from no layer below its floor."""
    if count == 0:
        return mask
    pinned = {name: _best({name: keep}, scores, least[name])[name] for name, keep in mask.items()}
    spare = {name: keep & ~pinned[name] for name, keep in mask.items()}
    return _either(pinned, _best(spare, scores, masks.kept(spare) - count))


def _best(candidates: Mask, scores: Scores, count: int) -> Mask:
    """The `count` best-scored candidates, or all; of equal scores the one with the lower index."""
    flat = torch.cat([keep.reshape(-1) for keep in candidates.values()])
    places = flat.nonzero().squeeze(1)
    values = torch.cat([scores[name].reshape(-1) for name in candidates])[places]
    order = values.sort(descending=True, stable=True).indices[: max(count, 0)]
    chosen = torch.zeros_like(flat)
    chosen[places[order]] = True
    parts = chosen.split([keep.numel() for keep in candidates.values()])
    return {name: part.clone().view(keep.shape) for part, (name, keep) in zip(parts, candidates.items(), strict=True)}


def _either(mask: Mask, other: Mask) -> Mask:
    return {name: keep | other[name] for name, keep in mask.items()}


def _record(reach: Reach, before: Mask, after: Mask, rounds: int) -> Repaired:
    dead = [masks.kept(mask) - masks.kept(both(mask, reach.on_path(mask))) for mask in (before, after)]
    layers = {name: int(keep.count_nonzero()) - int(before[name].count_nonzero()) for name, keep in after.items()}
    return Repaired(rounds, masks.kept(after) - masks.kept(both(after, before)), (dead[0], dead[1]), layers)
