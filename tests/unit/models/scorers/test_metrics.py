"""Rank correlation, overlap and the held-out report against hand-made figures."""

import math

import pytest
import torch
from scipy.stats import spearmanr
from torch import tensor

from autosparse.models.errors import DivergedError, SpecError
from autosparse.models.scorers.metrics import evaluate_scorer, spearman
from autosparse.models.seeding import generator


def test_spearman_of_orders_on_paper():
    assert spearman(tensor([1.0, 2.0, 3.0]), tensor([10.0, 20.0, 90.0])) == pytest.approx(1.0)
    assert spearman(tensor([1.0, 2.0, 3.0]), tensor([3.0, 2.0, 1.0])) == pytest.approx(-1.0)
    # ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, squares 4.5 and 5
    assert spearman(tensor([0, 7, 7, 9]), tensor([1.0, 2.0, 3.0, 4.0])) == pytest.approx(4.5 / math.sqrt(4.5 * 5))


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_spearman_with_ties_agrees_with_scipy(levels: int):
    stream = generator(3, "spearman", levels)
    a = torch.randint(levels, (500,), generator=stream)
    b = a.float() + torch.randint(levels, (500,), generator=stream)
    assert spearman(a.to(torch.float32), b) == pytest.approx(spearmanr(a.numpy(), b.numpy())[0], abs=1e-12)


def test_spearman_without_order_is_zero():
    assert spearman(torch.full((7,), 0.1), torch.arange(7.0)) == 0.0
    assert spearman(tensor([]), tensor([])) == 0.0


def overlap(scores: torch.Tensor, ticket: torch.Tensor) -> list[float]:
    """Of a single cut, after which `ticket` is left."""
    return list(evaluate_scorer({"a": scores}, {"a": ticket.to(torch.uint8)}, 1)["overlap"].values())


def test_overlap_by_hand():
    ticket = tensor([True, False, True, False, False])
    assert overlap(tensor([5.0, 1.0, 4.0, 2.0, 3.0]), ticket) == [1.0]
    assert overlap(tensor([5.0, 4.0, 1.0, 2.0, 3.0]), ticket) == [0.5]
    assert overlap(tensor([1.0, 5.0, 1.0, 4.0, 3.0]), ticket) == [0.0]


def test_overlap_breaks_ties_by_index_and_allows_an_empty_ticket():
    equal = torch.zeros(100)
    assert overlap(equal, torch.arange(100) < 10) == [1.0]
    assert overlap(equal, torch.arange(100) >= 90) == [0.0]
    assert overlap(equal, torch.zeros(100, dtype=torch.bool)) == [0.0]


def test_report_by_hand():
    survived = {"a": tensor([[2, 1], [0, 0]], dtype=torch.uint8), "b": tensor([2, 0], dtype=torch.uint8)}
    scores = {"a": tensor([[1.0, 0.5], [0.0, 0.0]]), "b": tensor([0.0, 0.2])}
    report = evaluate_scorer(scores, survived, 2)
    # targets 1, .5, 0, 0, 1, 0: mean 2.5/6, mean square 2.25/6; errors 0, 0, 0, 0, -1, .2
    variance = 2.25 / 6 - (2.5 / 6) ** 2
    assert report["rows"] == 6
    assert report["mse"] == pytest.approx(1.04 / 6)
    assert report["label_variance"] == pytest.approx(variance)
    assert report["r2"] == pytest.approx(1 - 1.04 / 6 / variance)
    assert report["spearman_within_layer"] == pytest.approx((4 * 1.0 + 2 * -1.0) / 6)
    assert report["spearman_pooled"] == pytest.approx(spearmanr([1, 0.5, 0, 0, 0, 0.2], [2, 1, 0, 0, 2, 0])[0])
    # the ticket of the first cut is 3 of 6: a0, a1, b0, and the top three scores are a0, a1, b1; in the layers a0, a1 | b1
    # the ticket of the second cut is 2 of 6: a0, b0, and the top two are a0, a1; in the layers a0 | b1
    assert report["overlap"] == pytest.approx({"0.5": 2 / 3, "0.3333": 0.5})
    assert report["overlap_within_layer"] == pytest.approx({"0.5": 2 / 3, "0.3333": 0.5})


def test_a_scorer_that_knows_only_layers_is_found_out():
    survived = {"first": tensor([3, 2, 3, 2], dtype=torch.uint8), "last": tensor([1, 0, 1, 0], dtype=torch.uint8)}
    report = evaluate_scorer({"first": torch.full((4,), 0.9), "last": torch.full((4,), 0.1)}, survived, 3, cuts=[2])
    assert report["spearman_pooled"] > 0.8
    assert report["spearman_within_layer"] == 0.0
    assert report["overlap"] == {"0.5": 1.0}


def test_constant_labels_and_scores_give_zeros_not_nan():
    report = evaluate_scorer({"a": torch.full((7,), 0.1)}, {"a": torch.ones(7, dtype=torch.uint8)}, 10)
    assert report["label_variance"] == 0.0 and report["r2"] == 0.0
    assert report["spearman_pooled"] == 0.0 and report["spearman_within_layer"] == 0.0
    assert report["overlap"] == {"1": 1.0, "0": 0.0}


def test_bad_input_is_named():
    labels = {"a": torch.ones(2, dtype=torch.uint8)}
    with pytest.raises(SpecError, match="scores"):
        evaluate_scorer({"b": torch.ones(2)}, labels, 3)
    with pytest.raises(SpecError, match="scores"):
        evaluate_scorer({}, {}, 3)
    with pytest.raises(DivergedError, match="scores.*nan"):
        evaluate_scorer({"a": tensor([1.0, float("nan")])}, labels, 3)
