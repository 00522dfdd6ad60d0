"""Survival labels of three cuts, on paper."""

import pytest
import torch
from torch import tensor

from autosparse.models.errors import DataError
from autosparse.models.scorers.labels import GROWTH_LEVELS, growth_levels, label_target, rounds_survived

FIRST = {"a": tensor([[True, True], [True, False]]), "b": tensor([True, True])}
SECOND = {"a": tensor([[True, False], [True, False]]), "b": tensor([False, True])}
THIRD = {"a": tensor([[True, False], [False, False]]), "b": tensor([False, False])}


def test_labels_of_three_masks_on_paper():
    survived = rounds_survived([FIRST, SECOND, THIRD])
    assert {name: labels.dtype for name, labels in survived.items()} == {"a": torch.uint8, "b": torch.uint8}
    assert survived["a"].tolist() == [[3, 1], [2, 0]]
    assert survived["b"].tolist() == [1, 2]


def test_label_target_is_the_share_of_rounds():
    assert label_target(tensor([0, 1, 2, 4], dtype=torch.uint8), 4).tolist() == [0.0, 0.25, 0.5, 1.0]


def test_a_weight_that_comes_back_is_refused():
    with pytest.raises(DataError, match="mask 1: 1 weights of b came back"):
        rounds_survived([SECOND, SECOND | {"b": tensor([True, True])}])


def test_masks_of_other_layers_and_no_masks_are_refused():
    with pytest.raises(DataError, match=r"mask 1: layers \['b'\]"):
        rounds_survived([FIRST, {"a": SECOND["a"]}])
    with pytest.raises(DataError, match="0 rounds"):
        rounds_survived([])
    with pytest.raises(DataError, match="256 rounds"):
        rounds_survived([FIRST] * 256)


def test_the_masks_given_are_not_changed():
    rounds_survived([FIRST, SECOND])
    assert FIRST["b"].tolist() == [True, True] and FIRST["b"].dtype == torch.bool


def test_growth_levels_by_hand():
    before, after = tensor([[1.0, -1.0], [0.5, 2.0]]), tensor([[1.5, -3.0], [-0.25, 1.0]])  # grown by .5, 2, -.25, -1
    assert growth_levels(before, after).tolist() == [[16, 24], [8, 0]]
    assert growth_levels(before, after).dtype == torch.uint8


def test_growth_levels_are_equally_full_and_of_equals_the_first_is_higher():
    levels = growth_levels(torch.zeros(4 * GROWTH_LEVELS), torch.zeros(4 * GROWTH_LEVELS))
    assert levels.bincount().tolist() == [4] * GROWTH_LEVELS
    assert levels.tolist() == sorted(levels.tolist(), reverse=True)
