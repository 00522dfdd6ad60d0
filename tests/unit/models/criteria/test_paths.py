"""The cut by paths: strengths on paper, SynFlow as a special case, nested masks, masks that carry paths where ranks alone do not."""

import math
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from autosparse.models.criteria.contract import ScoreFn
from autosparse.models.criteria.magnitude import magnitude
from autosparse.models.criteria.paths import LEAST_CONTRAST, Paths, blended, rank_among, rank_in_layer
from autosparse.models.criteria.smallest_paths import growth_paths, smallest_paths
from autosparse.models.criteria.synaptic_flow import ranks_by_flow, synflow, tempered
from autosparse.models.errors import DataError
from autosparse.models.masks import gates
from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import global_topk
from autosparse.models.scorers.criterion import as_criterion, looking_ahead
from autosparse.models.scorers.mlp import MlpScorer
from autosparse.models.scorers.registry import scorer_config, scorer_from_config
from autosparse.models.seeding import generator, scoped

HEAD = Paths(contrast=0.5, contrast_ahead=1.0, blend=0.25)
BATCHES = [(torch.randn(8, 3, 8, 8, generator=generator(0, "images")), torch.arange(8) % 4)]


def network(seed: int = 0) -> nn.Module:
    with scoped(seed, "network"):
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, bias=False), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
        )  # fmt: skip


def noise(network, batches, generator, *, head=True, density):
    return {name: torch.randn(param.shape, generator=generator) for name, param in masks.prunable(network, head=head).items()}


def test_ranks_of_four_weights_on_paper() -> None:
    assert rank_in_layer(torch.tensor([[3.0, 9.0], [3.0, -1.0]])).tolist() == [[0.625, 0.875], [0.375, 0.125]]


def test_the_contrast_grows_as_weights_die() -> None:
    assert HEAD.at(1.0) == LEAST_CONTRAST
    assert HEAD.at(0.01) == pytest.approx(LEAST_CONTRAST + 0.5 * math.log(100))


def test_strengths_keep_the_layers_mean_size_and_spread_by_the_contrast() -> None:
    ranks, sizes = {"a": torch.tensor([0.25, 0.75])}, {"a": torch.tensor(3.0, dtype=torch.float64)}
    low, high = HEAD._strengths(ranks, sizes, None, 0.1)["a"].tolist()
    assert (low + high) / 2 == pytest.approx(3.0)
    assert high / low == pytest.approx(math.exp(0.5 * HEAD.at(0.1)))


def test_with_its_own_weights_for_strengths_it_is_synflow() -> None:
    one = network()
    strengths = {name: param.detach().abs() for name, param in masks.prunable(one).items()}
    found = ranks_by_flow(one, lambda alive: strengths, BATCHES, density=0.1)
    expected = synflow(one, BATCHES, generator(0), density=0.1)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_masks_are_exact_nested_and_on_paths_where_the_ranking_alone_leaves_dead_weights() -> None:
    one = network()
    scores = HEAD.criterion(noise)(one, BATCHES, generator(1), density=0.02)
    cuts = [global_topk(scores, density) for density in (0.2, 0.05, 0.02)]
    assert [masks.kept(mask) for mask in cuts] == [round(density * masks.total(cuts[0])) for density in (0.2, 0.05, 0.02)]
    for larger, smaller in pairwise(cuts):
        assert all(bool((larger[name] | ~keep).all()) for name, keep in smaller.items())
    alone = global_topk(noise(one, BATCHES, generator(1), density=0.02), 0.02)
    alive = [gates.effective_density(one, mask, (3, 8, 8)) for mask in (cuts[-1], alone)]
    assert alive[0] > 0.9 * 0.02 > alive[1]


def test_a_tempered_flow_on_paper() -> None:
    strength, beside = torch.tensor([1.0, 2.0, 5.0, 1.0]).double(), torch.tensor([9.0, 1.0, 4.0, 2.0]).double()
    alive = torch.tensor([True, True, False, True])
    dead = strength * alive
    assert torch.allclose(tempered(beside * dead, dead, alive, 1.0), beside * dead)
    assert tempered(beside * dead, dead, alive, 0.5).tolist() == pytest.approx([6.0, 4.0, 0.0, 8.0**0.5])  # the mean beside is 4
    assert tempered(beside * dead, dead, alive, 0.0).tolist() == pytest.approx([4.0, 8.0, 0.0, 4.0])
    assert tempered(dead * 0, dead * 0, alive & False, 0.5).tolist() == [0.0] * 4


def test_fewer_hubs_spread_the_paths_over_more_channels() -> None:
    one, used = network(), []
    for hubs in (1.0, 0.5, 0.1):
        head = replace(HEAD, hubs_ahead=hubs, blend=0.0)
        scores = head.looking_ahead(lambda mask: noise, magnitude)(one, BATCHES, generator(1), density=0.05)
        cut = global_topk(scores, 0.05)
        assert gates.effective_density(one, cut, (3, 8, 8)) > 0.9 * 0.05
        used.append(sum(int(keep.flatten(1).any(1).sum()) for keep in cut.values()))
    assert used[0] < used[1] < used[2]


def test_of_two_weights_on_equal_paths_the_better_ranked_survives() -> None:
    one = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        for param in one.parameters():
            param.fill_(1.0)
    ranked = {"1.weight": torch.tensor([[4.0, 1.0], [2.0, 3.0]]), "2.weight": torch.tensor([[2.0, 1.0]])}
    scores = HEAD.criterion(lambda *args, **kwargs: ranked)(one, [(torch.ones(1, 2), torch.zeros(1))], generator(0), density=0.33)
    kept = global_topk(scores, 2 / 6)
    assert kept["1.weight"].tolist() == [[True, False], [False, False]]
    assert kept["2.weight"].tolist() == [[True, False]]


def test_the_network_stays_as_it_was() -> None:
    one, other = network(), network()
    HEAD.criterion(magnitude)(one, BATCHES, generator(1), density=0.1)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_a_blend_of_nothing_is_the_first_and_of_everything_ranks_as_the_second() -> None:
    one = network()
    assert blended(magnitude, noise, 0.0) is magnitude
    whole = blended(magnitude, noise, 1.0)(one, BATCHES, generator(3), density=0.1)
    expected = noise(one, BATCHES, generator(3), density=0.1)
    assert all(torch.equal(rank_in_layer(whole[name]), rank_in_layer(expected[name])) for name in expected)


def test_a_scorer_with_this_head_comes_back_from_its_card_and_looks_ahead() -> None:
    scorer = MlpScorer(seed=1)
    scorer.allocation = HEAD
    again = scorer_from_config(scorer_config(scorer))
    assert again.allocation == HEAD
    one = network()
    scores = as_criterion(scorer)(one, BATCHES, generator(1), density=0.1)
    assert masks.kept(global_topk(scores, 0.1)) == round(0.1 * sum(score.numel() for score in scores.values()))

    class Ahead(list):
        def look_ahead(self, network: nn.Module, mask: masks.Mask | None) -> nn.Module:
            assert mask is None
            grown = globals()["network"]()
            with torch.no_grad():
                for param in grown.parameters():
                    param.mul_(torch.linspace(0.5, 2.0, param.numel()).view(param.shape))
            return grown

    ahead = looking_ahead(scorer)(one, Ahead(BATCHES), generator(1), density=0.1)
    assert any(not torch.equal(ahead[name], scores[name]) for name in scores)


def test_ranks_among_some_on_paper() -> None:
    found = rank_among(torch.tensor([[3.0, 9.0, 5.0], [4.0, 1.0, 2.0]]), torch.tensor([[True, False, True], [False, True, True]]))
    assert found.tolist() == [[0.625, 0.0, 0.875], [0.0, 0.125, 0.375]]


def test_what_is_not_among_the_candidates_dies_first() -> None:
    one = network()
    among = {name: torch.rand(param.shape, generator=generator(5)) < 0.3 for name, param in masks.prunable(one).items()}
    scores = HEAD.criterion(noise, among)(one, BATCHES, generator(1), density=0.02)
    for density in (0.2, 0.05, 0.02):
        cut = global_topk(scores, density)
        assert not any(bool((keep & ~among[name]).any()) for name, keep in cut.items())
    wide = global_topk(scores, 0.6)
    assert all(bool((wide[name] | ~keep).all()) for name, keep in among.items())


def test_the_scorer_chooses_the_candidates_that_train() -> None:
    one, seen = network(), []

    def growth_under(mask: masks.Mask | None) -> ScoreFn:
        seen.append(mask)
        return noise

    head = replace(HEAD, candidates=0.3, blend=0.0)
    scores = head.looking_ahead(growth_under, magnitude)(one, BATCHES, generator(1), density=0.05)
    [chosen] = seen
    expected = global_topk(head.criterion(magnitude)(one, BATCHES, generator(1), density=0.3), 0.3, floor=1)
    assert masks.checksum(chosen) == masks.checksum(expected)
    cut = global_topk(scores, 0.05)
    assert masks.kept(cut) == round(0.05 * masks.total(cut)) and masks.overlap(cut, chosen) < 1
    assert not any(bool((keep & ~chosen[name]).any()) for name, keep in cut.items())
    assert gates.effective_density(one, cut, (3, 8, 8)) > 0.9 * 0.05


@pytest.mark.parametrize("described", [{"kind": "paths"}, {"kind": "roads"}, [], {**HEAD.to_plain(), "more": 1}])
def test_a_card_with_another_head_is_refused(described: object) -> None:
    config = {**scorer_config(MlpScorer()), "allocation": described or 7}
    with pytest.raises(DataError, match="allocation"):
        scorer_from_config(config)


def test_one_layer_keeps_its_smallest_weights() -> None:
    one = nn.Linear(5, 2, bias=False)
    images = [(torch.zeros(1, 5), torch.zeros(1))]
    scores = smallest_paths(one, images, generator(0), density=0.1)["weight"].flatten()
    assert torch.equal(scores.argsort(descending=True), one.weight.detach().abs().flatten().argsort())


def test_the_rule_that_looks_ahead_trains_its_own_fifth_and_keeps_what_grew() -> None:
    one, seen = network(), []

    class Ahead(list):
        def look_ahead(self, network: nn.Module, mask: masks.Mask | None) -> nn.Module:
            seen.append(mask)
            grown = deepcopy(network)
            with torch.no_grad():
                for param in masks.prunable(grown).values():
                    param[0] *= 3.0  # the first row or filter of every layer
            return grown

    scores = growth_paths(one, Ahead(BATCHES), generator(1), density=0.05)
    [chosen] = seen
    expected = global_topk(smallest_paths(one, BATCHES, generator(1), density=0.2), 0.2, floor=1)
    assert masks.checksum(chosen) == masks.checksum(expected)
    cut = global_topk(scores, 0.05)
    assert not any(bool((keep & ~chosen[name]).any()) for name, keep in cut.items())
    grew, did_not = ((cut["3.weight"][rows].sum() / chosen["3.weight"][rows].sum()).item() for rows in (slice(1), slice(1, None)))
    assert grew > 2 * did_not
