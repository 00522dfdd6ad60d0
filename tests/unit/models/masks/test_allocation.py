"""From scores to masks: four weights on paper, exact counts, ties, floors, nestedness, Erdos-Renyi-kernel densities."""

import math
from itertools import pairwise

import pytest
import torch

from autosparse.models.errors import DivergedError, SpecError
from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import erk_densities, erk_topk, global_topk, keep_count, uniform_plus_topk, uniform_topk
from autosparse.models.masks.mask import Mask, Scores

T, F = True, False
INF = float("inf")
ALLOCATORS = [global_topk, erk_topk, uniform_topk, uniform_plus_topk]


def plain(mask: Mask) -> dict[str, list]:
    return {name: keep.tolist() for name, keep in mask.items()}


def tensors(**scores: list) -> Scores:
    return {name: torch.tensor(score, dtype=torch.float32) for name, score in scores.items()}


def random_scores(*sizes: int, seed: int = 0, levels: int = 0) -> Scores:
    stream = torch.Generator().manual_seed(seed)
    scores = {f"layer{index}": torch.rand(size, generator=stream) for index, size in enumerate(sizes)}
    return {name: (score * levels).floor() for name, score in scores.items()} if levels else scores


def random_mask(scores: Scores, share: float) -> Mask:
    stream = torch.Generator().manual_seed(1)
    return {name: torch.rand(score.shape, generator=stream) < share for name, score in scores.items()}


@pytest.mark.parametrize(
    ("density", "total", "count"), [(0.5, 4, 2), (0.5, 5, 3), (0.49, 5, 2), (0.02, 100, 2), (1e-9, 100, 1), (1.0, 7, 7), (0.125, 4, 1)]
)
def test_counts_round_half_up_and_keep_at_least_one(density: float, total: int, count: int):
    assert keep_count(density, total) == count


@pytest.mark.parametrize("density", [0.0, -0.1, 1.1, float("nan")])
def test_a_density_outside_its_range_is_refused(density: float):
    with pytest.raises(SpecError, match="density: .*> 0 and <= 1"):
        global_topk(tensors(a=[1, 2]), density)


def test_four_weights_on_paper():
    scores = tensors(a=[[0.1, 0.9]], b=[0.5, 0.4])
    assert plain(global_topk(scores, 0.25)) == {"a": [[F, T]], "b": [F, F]}
    assert plain(global_topk(scores, 0.5)) == {"a": [[F, T]], "b": [T, F]}
    assert plain(global_topk(scores, 0.75)) == {"a": [[F, T]], "b": [T, T]}
    assert plain(global_topk(scores, 1.0)) == {"a": [[T, T]], "b": [T, T]}


def test_equal_scores_keep_the_lower_index():
    assert plain(global_topk(tensors(a=[1, 1], b=[1, 1]), 0.75)) == {"a": [T, T], "b": [T, F]}
    assert plain(global_topk(tensors(a=[0, 2, 1], b=[1, 1, 0]), 0.5)) == {"a": [F, T, T], "b": [T, F, F]}


def test_infinite_scores_are_ranked_like_others():
    assert plain(global_topk(tensors(a=[-INF, -INF, 1.0, INF]), 0.75)) == {"a": [T, F, T, T]}
    assert plain(global_topk(tensors(a=[INF, -INF, INF, 0.0]), 0.25)) == {"a": [T, F, F, F]}


@pytest.mark.parametrize("density", [0.001, 0.02, 0.3, 0.5, 0.977, 1.0])
@pytest.mark.parametrize("levels", [0, 1, 3])
@pytest.mark.parametrize("allocate", ALLOCATORS)
def test_the_count_is_exact_with_and_without_ties(allocate, levels: int, density: float):
    scores = random_scores(700, 301, 8, levels=levels)
    assert masks.kept(allocate(scores, density)) == max(1, math.floor(density * 1009 + 0.5))


def test_agrees_with_a_stable_sort():
    scores = random_scores(400, 200, levels=7)
    flat = torch.cat(list(scores.values()))
    best = flat.sort(descending=True, stable=True).indices[:60]
    mask = global_topk(scores, 0.1)
    assert torch.cat(list(mask.values())).nonzero().squeeze(1).tolist() == best.sort().values.tolist()


@pytest.mark.parametrize("floor", [0, 2])
@pytest.mark.parametrize("levels", [0, 4])
def test_masks_of_falling_densities_are_nested(levels: int, floor: int):
    scores = random_scores(300, 40, 5, levels=levels)
    cuts = [global_topk(scores, density, floor=floor) for density in (0.9, 0.5, 0.2, 0.1, 0.05, 0.02)]
    for larger, smaller in pairwise(cuts):
        assert masks.overlap(larger, smaller) == 1.0


def test_every_layer_keeps_its_floor_and_the_total_stays():
    scores = tensors(a=[9, 8, 7, 6], b=[1, 3], c=[2, 5])
    assert plain(global_topk(scores, 0.5)) == {"a": [T, T, T, T], "b": [F, F], "c": [F, F]}
    assert plain(global_topk(scores, 0.5, floor=1)) == {"a": [T, T, F, F], "b": [F, T], "c": [F, T]}
    assert plain(global_topk(scores, 0.75, floor=2)) == {"a": [T, T, F, F], "b": [T, T], "c": [T, T]}


def test_a_layer_smaller_than_the_floor_is_kept_whole():
    assert plain(global_topk(tensors(a=[5, 4, 3, 2, 1], b=[0]), 0.5, floor=2)) == {"a": [T, T, F, F, F], "b": [T]}


def test_floors_beyond_the_count_are_refused():
    with pytest.raises(SpecError, match="min_per_layer: 2 is not allowed"):
        global_topk(tensors(a=[1, 2], b=[3, 4]), 0.75, floor=2)


@pytest.mark.parametrize("allocate", ALLOCATORS)
def test_only_alive_weights_are_kept_and_the_denominator_is_all_weights(allocate):
    scores = tensors(a=[9, 8, 7, 6], b=[5, 4, 3, 2])
    alive = {"b": torch.tensor([F, T, T, T]), "a": torch.tensor([F, F, T, T])}
    assert plain(allocate(scores, 0.5, alive=alive)) == {"a": [F, F, T, T], "b": [F, T, T, F]}
    assert plain(allocate(scores, 0.625, alive=alive)) == {"a": [F, F, T, T], "b": [F, T, T, T]}
    with pytest.raises(SpecError, match=r"density: 0\.75 is not allowed; allowed: at most that of the alive weights, 0\.625"):
        allocate(scores, 0.75, alive=alive)


def test_dead_weights_never_count_for_the_floor():
    scores = tensors(a=[9, 8, 7], b=[5, 4, 3])
    alive = {"a": torch.tensor([T, T, T]), "b": torch.tensor([F, F, T])}
    assert plain(global_topk(scores, 0.5, floor=2, alive=alive)) == {"a": [T, T, F], "b": [F, F, T]}


def test_iterated_cuts_stay_within_alive():
    scores, alive = random_scores(200, 90), None
    for density in (0.7, 0.4, 0.1):
        mask = global_topk(random_scores(200, 90, seed=int(density * 10)), density, alive=alive, floor=3)
        assert alive is None or masks.overlap(alive, mask) == 1.0
        assert masks.kept(mask) == round(density * masks.total(scores))
        alive = mask


@pytest.mark.parametrize("allocate", ALLOCATORS)
def test_a_nan_score_names_its_layer(allocate):
    with pytest.raises(DivergedError, match=r"scores\.b: NaN"):
        allocate(tensors(a=[1, 2], b=[float("nan"), 1]), 0.5)


def test_masks_have_the_shapes_of_the_scores_and_own_their_memory():
    scores = {"a": torch.rand(2, 3, 3, 3).contiguous(memory_format=torch.channels_last), "b": torch.rand(4, 2)}
    mask = global_topk(scores, 0.5)
    assert {name: keep.shape for name, keep in mask.items()} == {name: score.shape for name, score in scores.items()}
    assert all(keep.dtype == torch.bool and keep.untyped_storage().nbytes() == keep.numel() for keep in mask.values())


def test_channels_last_scores_are_cut_by_position_not_by_memory():
    score = torch.arange(2 * 2 * 3 * 3, dtype=torch.float32).view(2, 2, 3, 3)
    expected = global_topk({"a": score}, 0.3)
    assert plain(global_topk({"a": score.contiguous(memory_format=torch.channels_last)}, 0.3)) == plain(expected)


def test_erk_densities_by_hand():
    # kept weights go by the sum of the dimensions, 20 : 11, of 110 weights
    assert erk_densities({"a": (10, 10), "b": (1, 10)}, 0.1) == pytest.approx({"a": 11 * 20 / 31 / 100, "b": 11 * 11 / 31 / 10})
    # 4 + 2 + 3 + 3 = 12 to 6 + 4 = 10, of 96 weights
    assert erk_densities({"a": (4, 2, 3, 3), "b": (6, 4)}, 0.25) == pytest.approx({"a": 24 * 12 / 22 / 72, "b": 24 * 10 / 22 / 24})


def test_erk_caps_a_layer_at_one_and_hands_on_the_rest():
    # 55 weights at 20 : 11 would put 19.5 into the 10 of b; b is full, a takes 45 of its 100
    densities = erk_densities({"a": (10, 10), "b": (1, 10)}, 0.5)
    assert densities["b"] == 1.0
    assert densities["a"] == pytest.approx(0.45)
    assert erk_densities({"a": (10, 10), "b": (1, 10)}, 1.0) == {"a": 1.0, "b": 1.0}


def test_erk_keeps_the_best_of_each_layer_with_counts_by_largest_remainder():
    scores = {"a": torch.arange(72.0).view(4, 2, 3, 3), "b": torch.arange(24.0).view(6, 4)}
    mask = erk_topk(scores, 0.25)  # 13.09 and 10.91 of 24
    assert {name: int(keep.sum()) for name, keep in mask.items()} == {"a": 13, "b": 11}
    assert mask["a"].flatten().tolist() == [F] * 59 + [T] * 13
    assert mask["b"].flatten().tolist() == [F] * 13 + [T] * 11


def test_erk_respects_floor_and_alive():
    scores = {"a": torch.rand(40, 40), "b": torch.rand(2, 3)}
    assert int(erk_topk(scores, 0.01)["b"].sum()) == 1  # 16 * 5 / 85 = 0.94
    assert int(erk_topk(scores, 0.01, floor=4)["b"].sum()) == 4
    alive = random_mask(scores, 0.3)
    mask = erk_topk(scores, 0.2, floor=1, alive=alive)
    assert masks.kept(mask) == round(0.2 * 1606)
    assert masks.overlap(alive, mask) == 1.0


# ---- uniform and uniform+


def counts(mask: Mask) -> dict[str, int]:
    return {name: int(keep.sum()) for name, keep in mask.items()}


def test_uniform_keeps_the_best_of_each_layer_at_one_density():
    scores = tensors(a=[9, 1, 5, 7], b=[2, 4], c=[0, -1, -2, -3, -4, -INF])
    assert plain(uniform_topk(scores, 0.5)) == {"a": [T, F, F, T], "b": [F, T], "c": [T, T, T, F, F, F]}
    # six of twelve; the next by (r + 1/2) / n: a 2.5/4, b 1.5/2, c 3.5/6
    assert counts(uniform_topk(scores, 7 / 12)) == {"a": 2, "b": 1, "c": 4}
    assert counts(uniform_topk(scores, 8 / 12)) == {"a": 3, "b": 1, "c": 4}


def test_uniform_counts_are_within_one_half_of_the_density_where_it_divides_evenly():
    scores = random_scores(1000, 90, 300)
    for density in (0.01, 0.1, 0.5, 0.9):
        assert counts(uniform_topk(scores, density)) == {"layer0": 1000 * density, "layer1": pytest.approx(90 * density, abs=0.5)} | {
            "layer2": 300 * density
        }


def test_uniform_shares_go_by_all_weights_and_dead_ones_are_replaced_from_their_own_layer_first():
    scores = tensors(a=[9, 8, 7, 6], b=[5, 4, 3, 2])
    alive = {"a": torch.tensor([F, F, T, T]), "b": torch.tensor([T, T, T, T])}
    assert plain(uniform_topk(scores, 0.5, alive=alive)) == {"a": [F, F, T, T], "b": [T, T, F, F]}
    assert plain(uniform_topk(scores, 0.75, alive=alive)) == {"a": [F, F, T, T], "b": [T, T, T, T]}


SHAPES = {"stem": (2, 1, 3, 3), "block": (10, 10, 3, 3), "hidden": (20, 10), "head": (5, 20)}


def shaped_scores() -> Scores:
    stream = torch.Generator().manual_seed(6)
    return {name: torch.rand(shape, generator=stream) for name, shape in SHAPES.items()}


def test_uniform_plus_by_hand():
    # 1,218 weights, density 0.1: 122 kept; 18 of the stem and 20 of the head's 100 leave 84 for 1,100: 84 * 9/11 = 68.7, 15.3
    assert counts(uniform_plus_topk(shaped_scores(), 0.1)) == {"stem": 18, "block": 69, "hidden": 15, "head": 20}
    # density 0.5: 609 kept, 591 for 1,200 weights at 0.4925, where the head is above its 20 % by itself: 443.25, 98.5, 49.25
    assert counts(uniform_plus_topk(shaped_scores(), 0.5)) == {"stem": 18, "block": 443, "hidden": 99, "head": 49}
    assert counts(uniform_plus_topk(shaped_scores(), 1.0)) == {"stem": 18, "block": 900, "hidden": 200, "head": 100}


def test_uniform_plus_keeps_the_best_of_each_layer():
    scores = shaped_scores()
    mask = uniform_plus_topk(scores, 0.1)
    for name in ("block", "hidden", "head"):
        assert scores[name][mask[name]].min() > scores[name][~mask[name]].max()


def test_uniform_plus_below_its_promises_fills_the_convolution_first_and_respects_floors():
    assert counts(uniform_plus_topk(shaped_scores(), 0.02)) == {"stem": 18, "block": 0, "hidden": 0, "head": 6}  # 24 of 1,218
    assert counts(uniform_plus_topk(shaped_scores(), 0.02, floor=2)) == {"stem": 18, "block": 2, "hidden": 2, "head": 2}


def test_uniform_plus_of_a_perceptron_promises_the_head_alone():
    scores = {"0": torch.rand(30, 40), "1": torch.rand(10, 30)}
    assert counts(uniform_plus_topk(scores, 0.1)) == {"0": 90, "1": 60}


@pytest.mark.parametrize("allocate", [uniform_topk, uniform_plus_topk])
def test_uniform_masks_are_nested_count_by_count(allocate):
    scores = shaped_scores()
    cuts = [allocate(scores, count / 1218) for count in range(1218, 0, -7)]
    assert all(masks.overlap(larger, smaller) == 1.0 for larger, smaller in pairwise(cuts))
