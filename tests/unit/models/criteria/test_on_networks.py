"""Every criterion on three registered networks: what must hold whatever the formula is."""

import copy
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from autosparse.models import seeding
from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import keep_count
from autosparse.models.masks.mask import Scores, prunable
from autosparse.models.networks.build import build_network
from autosparse.models.specs.run_specs import LOOKING_AHEAD, NetworkSpec

NETWORKS = {
    "lenet300-100": (NetworkSpec(name="lenet300-100"), (1, 8, 8)),
    "resnet8": (NetworkSpec(name="resnet8", width=4), (3, 12, 12)),
    "vgg11": (NetworkSpec(name="vgg11", width=4), (3, 32, 32)),
}
DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02)
RANKS = ("force", "magnitude_iterative", "ntk_sap", "phew", "smallest_paths", "snip_iterative", "synflow")
RANDOM = ("erk", "ntk_sap", "phew", "random", "uniform", "uniform_plus")


def case(name: str) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    spec, shape = NETWORKS[name]
    stream = seeding.generator(1, "batches")
    batches = [(torch.randn(8, *shape, generator=stream), torch.randint(10, (8,), generator=stream)) for _ in range(2)]
    return build_network(spec, image_shape=shape, num_classes=10, seed=0), batches


@cache
def scored(criterion: str, name: str, seed: int = 3) -> tuple[Scores, bool]:
    """Scores, and whether the network's state is the same bits as before."""
    network, batches = case(name)
    before = copy.deepcopy(network.state_dict())
    scores = CRITERIA[criterion].score(network, batches, seeding.generator(seed), head=True, density=min(DENSITIES))
    after = network.state_dict()
    return scores, all(torch.equal(before[key], after[key]) for key in before)


STRICT = sorted(set(CRITERIA) - set(LOOKING_AHEAD))
every = pytest.mark.parametrize(("criterion", "name"), [(criterion, name) for criterion in STRICT for name in NETWORKS])


@every
def test_the_network_is_untouched_and_scores_fit_it(criterion: str, name: str):
    scores, untouched = scored(criterion, name)
    assert untouched
    assert {layer: score.shape for layer, score in scores.items()} == {
        layer: param.shape for layer, param in prunable(case(name)[0]).items()
    }
    assert all(score.isfinite().all() for score in scores.values())


@every
def test_counts_are_exact(criterion: str, name: str):
    scores, _ = scored(criterion, name)
    for density in DENSITIES:
        mask = CRITERIA[criterion].allocate(scores, density)
        assert masks.kept(mask) == keep_count(density, masks.total(mask))
        with_floor = CRITERIA[criterion].allocate(scores, density, floor=2)
        assert masks.kept(with_floor) == masks.kept(mask)
        assert min(int(keep.sum()) for keep in with_floor.values()) >= 2


@pytest.mark.parametrize(("criterion", "name"), [(criterion, name) for criterion in STRICT if criterion != "erk" for name in NETWORKS])
def test_masks_are_nested(criterion: str, name: str):  # erk rounds by largest remainder
    scores, _ = scored(criterion, name)
    cuts = [CRITERIA[criterion].allocate(scores, density) for density in DENSITIES]
    assert all(masks.overlap(larger, smaller) == 1.0 for larger, smaller in pairwise(cuts))


@every
def test_the_seed_decides_where_there_is_chance_and_nowhere_else(criterion: str, name: str):
    first, _ = scored(criterion, name)
    network, batches = case(name)
    score = CRITERIA[criterion].score
    again = score(network, batches, seeding.generator(3), head=True, density=min(DENSITIES))
    other = score(network, batches, seeding.generator(4), head=True, density=min(DENSITIES))
    assert all(torch.equal(first[layer], again[layer]) for layer in first)
    assert all(torch.equal(first[layer], other[layer]) for layer in first) == (criterion not in RANDOM)


@pytest.mark.parametrize(("criterion", "name"), [(criterion, name) for criterion in RANKS for name in NETWORKS])
def test_iterated_criteria_give_every_weight_a_rank_of_its_own(criterion: str, name: str):
    flat = torch.cat([score.flatten() for score in scored(criterion, name)[0].values()])
    assert torch.equal(flat.sort().values, torch.arange(len(flat), dtype=torch.float64))
