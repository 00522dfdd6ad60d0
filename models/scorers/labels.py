"""Labels of weights: how many cuts each outlived in all rounds, and its place by growth in the first training."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from autosparse.models.errors import DataError

MOST_ROUNDS = 255  # a label is one byte
GROWTH_LEVELS = 32  # five bits a weight on disk; the growth itself is far noisier


def rounds_survived(masks: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Number of cuts each weight outlived, 0..len(masks), as uint8 tensors of the layers' shapes.

    `masks` are those after each cut, in order. Raises DataError where a mask keeps a weight that an earlier cut removed, where
    the layers differ, or where there are none or more than MOST_ROUNDS.
    """
    if not 1 <= len(masks) <= MOST_ROUNDS:
        raise DataError(f"masks: {len(masks)} rounds are not allowed; allowed: 1 to {MOST_ROUNDS}")
    survived = {name: kept.to(torch.uint8) for name, kept in masks[0].items()}
    for cut, (before, after) in enumerate(pairwise(masks), start=1):
        if after.keys() != before.keys():
            raise DataError(f"mask {cut}: layers {sorted(after.keys() ^ before.keys())} are not in all masks; allowed: the same layers")
        for name, kept in after.items():
            back = int((kept & ~before[name]).sum())
            if back:
                raise DataError(f"mask {cut}: {back} weights of {name} came back; allowed: a part of mask {cut - 1}")
            survived[name] += kept
    return survived


def label_target(label: Tensor, most: int) -> Tensor:
    """The number the scorer is fitted to: a label as a share of the highest there can be, float32 in [0, 1].

    Rounds survived, with a geometric density schedule, become the logarithm of the density at which the weight died, in units of
    the last one.
    """
    return label.float() / most


def growth_levels(before: Tensor, after: Tensor) -> Tensor:
    """Weights of one layer before and after a training -> place of abs(after) - abs(before) in the layer, uint8 of that shape.

    0 = what shrank most, GROWTH_LEVELS - 1 = what grew most, equally many weights on each level; of equals the first is higher.
    """
    grown = (after.detach().double().abs() - before.detach().double().abs()).reshape(-1)
    order = grown.sort(descending=True, stable=True).indices
    levels = torch.empty(len(grown), dtype=torch.uint8, device=grown.device)
    places = torch.arange(len(grown) - 1, -1, -1, device=grown.device)
    levels[order] = (places * GROWTH_LEVELS // len(grown)).to(torch.uint8)
    return levels.view(before.shape)
