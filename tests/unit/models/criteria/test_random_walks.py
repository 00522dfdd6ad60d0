"""PHEW: frequencies of walks against all paths enumerated, routes by hand, masks made of whole paths."""

import itertools
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from autosparse.models import seeding
from autosparse.models.criteria.random_walks import odds_of, phew, walk
from autosparse.models.criteria.walk_routes import route_of
from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import global_topk
from autosparse.models.masks.mask import Scores, prunable
from autosparse.models.networks.build import build_network
from autosparse.models.specs.run_specs import NetworkSpec


def with_weights(network: nn.Module, *weights: list) -> nn.Module:
    with torch.no_grad():
        for param, weight in zip(prunable(network).values(), weights, strict=True):
            param.copy_(torch.tensor(weight, dtype=param.dtype).view(param.shape))
    return network


def paths_of(network: nn.Module, count: int, *, backward: bool) -> Counter[tuple[int, ...]]:
    """How many of `count` walks met which weights (flat indices), in the order in which they met them."""
    params = prunable(network)
    route = route_of(network, list(params))
    odds = odds_of(params, [layer for segment in route for branch in segment for layer in branch])
    met: list[list[int]] = [[] for _ in range(count)]
    for walks, weights, _ in walk(route, odds, 0, count, seeding.generator(2), backward=backward):
        for number, weight in zip(walks.tolist(), weights.tolist(), strict=True):
            met[number].append(weight)
    return Counter(map(tuple, met))


def assert_frequencies(found: Counter[tuple[int, ...]], expected: dict[tuple[int, ...], float], count: int) -> None:
    assert set(found) <= {path for path, share in expected.items() if share > 0}
    for path, share in expected.items():
        assert found[path] / count == pytest.approx(share, abs=4 * (share * (1 - share) / count) ** 0.5)


FIRST, SECOND = [[1.0, -3.0], [-2.0, 0.0]], [[4.0, -1.0], [0.5, 2.0]]  # weights[out][in], flat indices 0 to 3 and 4 to 7
HALVES = (0, 1)


def test_forward_walks_on_two_layers_against_all_paths():
    expected = {}
    for source, hidden, end in itertools.product(HALVES, repeat=3):
        first = abs(FIRST[hidden][source]) / sum(abs(FIRST[unit][source]) for unit in HALVES)
        second = abs(SECOND[end][hidden]) / sum(abs(SECOND[unit][hidden]) for unit in HALVES)
        expected[(2 * hidden + source, 4 + 2 * end + hidden)] = 0.5 * first * second
    network = with_weights(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), FIRST, SECOND)
    assert_frequencies(paths_of(network, 20_000, backward=False), expected, 20_000)


def test_backward_walks_on_two_layers_against_all_paths():
    expected = {}
    for source, hidden, end in itertools.product(HALVES, repeat=3):
        second = abs(SECOND[end][hidden]) / sum(abs(value) for value in SECOND[end])
        first = abs(FIRST[hidden][source]) / sum(abs(value) for value in FIRST[hidden])
        expected[(4 + 2 * end + hidden, 2 * hidden + source)] = 0.5 * second * first
    network = with_weights(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), FIRST, SECOND)
    assert_frequencies(paths_of(network, 20_000, backward=True), expected, 20_000)


def test_a_convolution_takes_the_kernel_by_its_mass_and_one_weight_of_it_by_its_share():
    # one input channel, kernels of masses 1 + 3 and 2 + 2 + ... over two positions: each 1/2, then 1/4, 3/4 and 1/2, 1/2
    network = with_weights(nn.Conv1d(1, 2, 2), [1.0, -3.0, 2.0, 2.0])
    assert_frequencies(paths_of(network, 8000, backward=False), {(0,): 1 / 8, (1,): 3 / 8, (2,): 1 / 4, (3,): 1 / 4}, 8000)


def test_a_linear_layer_takes_the_flattened_images_of_its_channel():
    # channel c of the convolution is inputs 3c, 3c + 1, 3c + 2
    network = with_weights(nn.Sequential(nn.Conv1d(1, 2, 1), nn.Flatten(), nn.Linear(6, 1)), [1.0, 1.0], [1.0] * 6)
    allowed = {(channel, 2 + 3 * channel + position): 1 / 6 for channel in (0, 1) for position in range(3)}
    assert_frequencies(paths_of(network, 6000, backward=False), allowed, 6000)
    back = {(weight, channel): share for (channel, weight), share in allowed.items()}
    assert_frequencies(paths_of(network, 6000, backward=True), back, 6000)


def test_grouped_convolutions_stay_within_their_group():
    # outputs 0, 1 see inputs 0, 1; outputs 2, 3 see inputs 2, 3: weight [out][in within group], flat 2 * out + in % 2
    network = with_weights(nn.Conv1d(4, 4, 1, groups=2), [1.0] * 8)
    expected = {(2 * out + source % 2,): 1 / 8 for out in range(4) for source in range(4) if out // 2 == source // 2}
    assert len(expected) == 8
    for backward in (False, True):
        assert_frequencies(paths_of(network, 8000, backward=backward), expected, 8000)
    depthwise = nn.Sequential(nn.Conv1d(3, 3, 1, groups=3), nn.Conv1d(3, 1, 1))
    assert set(paths_of(depthwise, 300, backward=False)) == {(0, 3), (1, 4), (2, 5)}


def routes(name: str, width: int) -> list[list[str]]:
    network = build_network(NetworkSpec(name=name, width=width), image_shape=(3, 16, 16), num_classes=10, seed=0)
    route = route_of(network, list(prunable(network)))
    return [["+".join(layer.name.removesuffix(".weight") for layer in branch) for branch in segment] for segment in route]


def test_routes_of_basic_blocks():
    assert routes("resnet8", 4) == [
        ["stem.0"],
        ["stages.0.0.conv1"],
        ["stages.0.0.conv2"],
        ["stages.1.0.conv1+stages.1.0.conv2", "stages.1.0.shortcut.0"],
        ["stages.2.0.conv1+stages.2.0.conv2", "stages.2.0.shortcut.0"],
        ["head"],
    ]


def test_routes_of_bottlenecks_whose_channels_repeat():
    found = routes("resnet50", 4)
    assert found[1] == ["stages.0.0.conv1+stages.0.0.conv2+stages.0.0.conv3", "stages.0.0.shortcut.0"]
    assert found[2:5] == [["stages.0.1.conv1"], ["stages.0.1.conv2"], ["stages.0.1.conv3"]]
    assert sum(len(segment) == 2 for segment in found) == 4


class ShortcutFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shortcut, self.inner, self.odd = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 4, 3), nn.Conv2d(3, 5, 1)


def test_routes_where_the_shortcut_comes_first_and_where_a_layer_fits_nowhere():
    with seeding.scoped(0, "init"):
        network = ShortcutFirst()
    names = [[layer.name for branch in segment for layer in branch] for segment in route_of(network, list(prunable(network)))]
    assert names == [["shortcut.weight", "inner.weight"], ["odd.weight"]]
    starts = {path[-1] for path in paths_of(network, 600, backward=False)}
    assert starts == set(range(8 + 72, 8 + 72 + 15))  # entered at random: every weight of the layer is met


def test_a_shortcut_around_a_fork_is_entered_at_random_and_no_layer_is_lost():
    block = nn.ModuleDict({"first": nn.Linear(2, 4), "second": nn.Linear(4, 3), "shortcut": nn.Linear(2, 3)})
    network = nn.ModuleDict({"block": block, "last": nn.Linear(3, 5), "shortcut": nn.Linear(2, 5)})
    names = [["+".join(layer.name for layer in branch) for branch in segment] for segment in route_of(network, list(prunable(network)))]
    assert names == [["block.first.weight+block.second.weight", "block.shortcut.weight"], ["last.weight"], ["shortcut.weight"]]


def test_a_fork_is_taken_both_ways_with_equal_probability():
    block = nn.Sequential()
    block.add_module("inner", nn.Sequential(nn.Linear(1, 3, bias=False), nn.Linear(3, 2, bias=False)))
    block.add_module("shortcut", nn.Linear(1, 2, bias=False))
    found = paths_of(block, 4000, backward=False)
    assert {len(path) for path in found} == {1, 2}
    assert sum(times for path, times in found.items() if len(path) == 1) / 4000 == pytest.approx(0.5, abs=0.035)


def scores_of(network: nn.Module, *, seed: int = 0, density: float = 0.1) -> Scores:
    return phew(network, [], seeding.generator(seed), density=density)


def test_the_only_path_comes_first_and_zeros_are_never_met():
    # from the input by unit 1 to the output; all else is zero and goes by index
    network = with_weights(nn.Sequential(nn.Linear(1, 3), nn.Linear(3, 1)), [0.0, 2.0, 0.0], [0.0, 1.0, 0.0])
    scores = scores_of(network)
    assert scores["0.weight"].flatten().tolist() == [3, 5, 2]
    assert scores["1.weight"].flatten().tolist() == [1, 4, 0]


def reached(mask: dict[str, Tensor]) -> list[bool]:
    """For each layer of a chain after the first: does every kept weight have a kept one before it?"""
    layers = [keep.flatten(2).any(2) if keep.dim() > 2 else keep for keep in mask.values()]
    return [bool((before.any(1) | ~after.any(0)).all()) for before, after in itertools.pairwise(layers)]


@pytest.mark.parametrize(("onward", "back"), [(1, 0), (1, 1), (2, 1), (9, 9)])
def test_masks_cut_between_walks_are_whole_paths(onward: int, back: int):
    network = build_network(NetworkSpec(name="vgg11", width=4), image_shape=(3, 32, 32), num_classes=10, seed=0)
    scores = scores_of(network)
    flat = torch.cat([score.flatten() for score in scores.values()])
    # walks on and back take turns; each meets one weight in each of the nine layers
    params = prunable(network)
    route = route_of(network, list(params))
    odds = odds_of(params, [layer for segment in route for branch in segment for layer in branch])
    stream = seeding.generator(0)
    both = [(onward, walk(route, odds, 0, 1024, stream, backward=False)), (back, walk(route, odds, 0, 1024, stream, backward=True))]
    met = {int(weights[index]) for count, visits in both for _, weights, _ in visits for index in range(count)}
    assert set(flat.argsort(descending=True)[: len(met)].tolist()) == met
    mask = global_topk(scores, len(met) / len(flat))
    assert masks.collapsed_layers(mask) == []
    assert all(reached(mask))


def test_magnitude_does_not_connect_what_walks_do():
    network = build_network(NetworkSpec(name="vgg11", width=4), image_shape=(3, 32, 32), num_classes=10, seed=0)
    magnitudes = {name: param.detach().abs() for name, param in prunable(network).items()}
    assert not all(reached(global_topk(magnitudes, 0.005)))


def test_high_weights_are_met_first_and_the_order_is_random():
    network = build_network(NetworkSpec(name="lenet300-100"), image_shape=(1, 8, 8), num_classes=10, seed=0)
    first, second = (scores_of(network, seed=seed) for seed in (0, 1))
    assert not torch.equal(first["1.weight"], second["1.weight"])
    mask = global_topk(first, 0.1)
    for name, param in prunable(network).items():
        assert param.detach()[mask[name]].abs().mean() > 1.2 * param.detach()[~mask[name]].abs().mean()


def test_what_no_walk_meets_follows_by_magnitude():
    network = build_network(NetworkSpec(name="lenet300-100"), image_shape=(1, 8, 8), num_classes=10, seed=0)
    ranks = torch.cat([score.flatten() for score in scores_of(network).values()])
    magnitudes = torch.cat([param.detach().abs().flatten() for param in prunable(network).values()])
    by_rank = magnitudes[ranks.argsort()]  # worst first; half of the 50,200 weights are met at least, most of them at most
    assert by_rank[:10_000].diff().min() >= 0
    assert by_rank[-25_100:].diff().min() < 0


def test_masks_at_larger_densities_do_not_depend_on_the_smallest():
    network = build_network(NetworkSpec(name="resnet8", width=4), image_shape=(3, 16, 16), num_classes=10, seed=0)
    wide, narrow = scores_of(network, density=0.4), scores_of(network, density=0.01)
    assert all(torch.equal(wide[name], narrow[name]) for name in wide)
