"""Masks of all rounds -> survival labels, and back: how many cuts each weight outlived."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from models.errors import DataError

MOST_ROUNDS = 255  # a label is one byte


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


def label_target(survived: Tensor, rounds: int) -> Tensor:
    """The number the scorer is fitted to: rounds survived as a share of all rounds, float32 in [0, 1].

    With a geometric density schedule this is the logarithm of the density at which the weight died, in units of the last one.
    """
    return survived.float() / rounds


def mask_after(survived: Mapping[str, Tensor], cuts: int) -> dict[str, Tensor]:
    """The mask that stood after so many cuts; 0 keeps everything."""
    return {name: labels >= cuts for name, labels in survived.items()}
