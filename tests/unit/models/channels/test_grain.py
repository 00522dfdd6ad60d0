"""Masks of kernels, of channels and of weights inside channels."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autosparse.models.channels.examples import example_of
from autosparse.models.channels.grain import Grained, best_kernels
from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.errors import CollapseError
from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import global_topk, keep_count
from autosparse.models.masks.mask import Scores
from autosparse.models.networks.build import build_network
from autosparse.models.networks.flops import forward_macs
from autosparse.models.specs.grain import Grain
from autosparse.models.specs.run_specs import NetworkSpec

SHAPE = (3, 16, 16)


def resnet8(seed: int = 0) -> nn.Module:
    return build_network(NetworkSpec(name="resnet8"), image_shape=SHAPE, num_classes=10, seed=seed)


def grained(network: nn.Module, **grain: Any) -> Grained:
    return Grained(network, example_of(SHAPE), Grain(**grain))


def magnitudes(network: nn.Module) -> Scores:
    return {name: weight.detach().abs() for name, weight in masks.prunable(network).items()}


def test_whole_kernels_stay_by_their_mean_and_the_count_is_as_exact_as_kernels_are() -> None:
    scores = {"conv": torch.tensor([[1.0, 1.0, 1.0], [9.0, 9.0, 0.0]]).view(2, 1, 3, 1), "head": torch.tensor([[8.0, 2.0]])}
    mask = best_kernels(scores, 0.5)  # 4 of 8: the weight 8, then the kernel with two nines, and what is left is too small for another
    assert mask["head"].tolist() == [[True, False]]
    assert mask["conv"].flatten(1).tolist() == [[False] * 3, [True] * 3]
    assert masks.kept(best_kernels(scores, 0.25)) == 2  # no kernel of three fits: the two single weights
    assert best_kernels(scores, 0.5, floor=2)["conv"].any(), "floors come first"


def test_channels_cost_at_most_the_share_and_nearly_as_much() -> None:
    network = resnet8()
    whole = sum(forward_macs(network, SHAPE).values())
    for share in (0.5, 0.25, 0.1):
        mask = grained(network, grain="channels").cut(magnitudes(network), share, allocate=global_topk, again=magnitudes)
        left = sum(count * masks.layer_densities(mask)[name] for name, count in forward_macs(network, SHAPE).items())
        assert 0.97 * share * whole < left <= share * whole
        for keep in mask.values():  # what is left of a layer is a block of rows and columns
            rows, columns = keep.flatten(2).any(2) if keep.dim() > 2 else keep, keep.flatten(2).all(2) if keep.dim() > 2 else keep
            assert torch.equal(rows, columns) and torch.equal(rows, rows.any(1)[:, None] & rows.any(0)[None])


def test_another_cost_is_met_as_well() -> None:
    network = resnet8()
    mask = grained(network, grain="channels", cost="weights").cut(magnitudes(network), 0.2, allocate=global_topk, again=magnitudes)
    assert 0.19 < masks.density(mask) <= 0.2


def test_uniform_widths_leave_the_choice_of_channels_alone() -> None:
    network = resnet8()
    at = grained(network, grain="channels", widths="uniform")
    mask = at.cut(magnitudes(network), 0.25, allocate=global_topk, again=magnitudes)
    shares = [keep.flatten(1).any(1).double().mean() for name, keep in mask.items() if "head" not in name]
    assert max(shares) - min(shares) <= 1 / 16 + 1e-9  # to whole channels of the narrowest layer


def test_one_ranking_of_all_channels_follows_the_scores() -> None:
    network = resnet8()
    scores = {name: torch.full_like(value, 2.0 if name.startswith("stages.0") else 1.0) for name, value in magnitudes(network).items()}
    mask = grained(network, grain="channels", widths="scores").cut(scores, 0.5, allocate=global_topk, again=magnitudes)
    assert mask["stages.0.0.conv1.weight"].all() and not mask["stages.2.0.conv1.weight"].all()


def test_channels_of_an_earlier_mask_alone_can_stay() -> None:
    network = resnet8()
    at, scores = grained(network, grain="channels"), magnitudes(network)
    first = at.channels(scores, 0.5, allocate=global_topk)
    turned = {name: -score for name, score in scores.items()}
    second = at.channels(turned, 0.3, allocate=global_topk, alive=first)
    assert all((first[name] | ~keep).all() for name, keep in second.items())
    assert masks.density(first) < 0.47  # fewer weights than the share of the cost that is asked for next
    third = at.channels(turned, 0.47, allocate=global_topk, alive=first)
    assert masks.density(third) < masks.density(first)


def test_a_mixed_mask_has_exactly_its_density_inside_the_channels_that_stay() -> None:
    network = resnet8()
    seen: list[int] = []

    def again(smaller: nn.Module) -> Scores:
        seen.append(sum(int(weight.count_nonzero()) for weight in masks.prunable(smaller).values()))
        return magnitudes(smaller)

    at = grained(network, grain="mixed", inside=0.5)
    mask = at.cut(magnitudes(network), 0.1, allocate=global_topk, again=again)
    total = masks.total(mask)
    assert masks.kept(mask) == keep_count(0.1, total)
    assert 0.18 * total < seen[0] <= 0.2 * total  # scored again without the channels that left
    wide = at.channels(magnitudes(network), 0.2, allocate=global_topk)
    assert all((wide[name] | ~keep).all() for name, keep in mask.items())


def test_the_network_stays_as_it_is_and_the_same_call_gives_the_same_bits() -> None:
    network = resnet8()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first, second = (
        grained(network, grain="mixed").cut(magnitudes(network), 0.1, allocate=global_topk, again=magnitudes) for _ in range(2)
    )
    assert masks.checksum(first) == masks.checksum(second)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_erk_at_the_grain_of_channels_has_the_widths_of_erk() -> None:
    network, erk = resnet8(), CRITERIA["erk"]
    stream = torch.Generator().manual_seed(0)
    batch: list[tuple[Tensor, Tensor]] = [(torch.zeros(1, *SHAPE), torch.zeros(1, dtype=torch.int64))]
    scores = erk.score(network, batch, stream, head=True, density=0.1)
    mask = grained(network, grain="channels").cut(scores, 0.25, allocate=erk.allocate, again=magnitudes)
    densities = masks.layer_densities(mask)
    assert densities["stages.0.0.conv1.weight"] > 1.5 * densities["stages.2.0.conv2.weight"]


def test_a_share_below_one_channel_per_layer_is_refused() -> None:
    network = resnet8()
    with pytest.raises(CollapseError, match=r"density: 0\.001 is not allowed; allowed: at least the price of one channel per layer"):
        grained(network, grain="channels").cut(magnitudes(network), 0.001, allocate=global_topk, again=magnitudes)


def test_the_shuffle_of_kernels_keeps_whole_kernels() -> None:
    network = resnet8()
    at = grained(network, grain="kernels")
    mask = at.cut(magnitudes(network), 0.1, allocate=global_topk, again=magnitudes)
    other = at.shuffle(mask, torch.Generator().manual_seed(0))
    for name, keep in other.items():
        assert keep.count_nonzero() == mask[name].count_nonzero()
        assert keep.flatten(2).any(2).equal(keep.flatten(2).all(2)) if keep.dim() > 2 else True
    assert masks.checksum(other) != masks.checksum(mask)
