"""Iteration around a score function: six weights on paper, SNIP and FORCE against explicit loops in float64, controls."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from autosparse.models import seeding
from autosparse.models.criteria.iterative import iterated, ranks_of_death, ranks_with_revival
from autosparse.models.criteria.magnitude import magnitude
from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.errors import DivergedError, SpecError
from autosparse.models.features import FEATURE_NAMES
from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import global_topk, keep_count
from autosparse.models.masks.mask import Mask, Scores, prunable
from autosparse.models.scorers.criterion import as_criterion

Batch = tuple[Tensor, Tensor]


def network_and_batches() -> tuple[nn.Sequential, list[Batch]]:
    with seeding.scoped(11, "test"):
        network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
        batches = [(torch.randn(9, 4, dtype=torch.float64), torch.randint(0, 3, (9,))) for _ in range(2)]
    return network, batches


def flat(values: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.detach().reshape(-1) for value in values.values()])


def gate_slopes(network: nn.Sequential, batches: list[Batch], mask: Tensor) -> Tensor:
    """|dL/dm| at the mask, all weights at their dense value: |w * g| of every weight, kept or not."""
    params = prunable(network)
    gates = mask.double().requires_grad_()
    parts = (flat(params) * gates).split([param.numel() for param in params.values()])
    weights = {name: part.view(param.shape) for part, (name, param) in zip(parts, params.items(), strict=True)}
    losses = [cross_entropy(functional_call(copy.deepcopy(network), weights, (images,)), labels) for images, labels in batches]
    (slopes,) = torch.autograd.grad(torch.stack(losses).mean(), gates)
    return slopes.abs()


def best(scores: Tensor, count: int) -> Tensor:
    mask = torch.zeros(len(scores), dtype=torch.bool)
    mask[scores.sort(descending=True, stable=True).indices[:count]] = True
    return mask


def by_explicit_loop(network: nn.Sequential, batches: list[Batch], counts: list[int], *, revive: bool) -> list[Tensor]:
    """The masks of all iterations."""
    mask, trail = torch.ones(69, dtype=torch.bool), []
    for count in counts:
        scores = gate_slopes(network, batches, mask)
        mask = best(scores if revive else scores.masked_fill(~mask, -1), count)
        trail.append(mask)
    return trail


# ---- ranks of death on paper


def scripted(*rounds: list[float]):
    """A score function that gives these numbers in turn, and the masks it was shown."""
    seen: list[list[bool]] = []

    def score_at(alive: Mask) -> Scores:
        seen.append(alive["a"].tolist())
        return {"a": torch.tensor(rounds[len(seen) - 1])}

    return score_at, seen


SIX = {"a": torch.zeros(6)}
T, F = True, False


def test_six_weights_on_paper():
    # density 1/4 in two iterations: 6 -> 3 -> 2 (1.5 rounds up)
    score_at, seen = scripted([6.0, 1, 5, 3, 4, 2], [1.0, 9, 3, 9, 2, 9])
    ranks = ranks_of_death(score_at, SIX, 2, 0.25)
    assert seen == [[T] * 6, [T, F, T, F, T, F]]
    # first dies 1, then 5, then 3; in the second iteration 0; 2 is above 4 at the end
    assert ranks["a"].tolist() == [3, 0, 5, 2, 4, 1]


def test_six_weights_that_may_come_back_on_paper():
    score_at, seen = scripted([6.0, 1, 5, 3, 4, 2], [1.0, 9, 3, 2, 4, 8])
    ranks = ranks_with_revival(score_at, SIX, 2, 0.25)
    assert seen == [[T] * 6, [T, F, T, F, T, F]]
    # 1 and 5 come back and are the mask; 4, 2, 0 were in the first iteration's mask; 3 never was in any
    assert ranks["a"].tolist() == [1, 5, 2, 0, 3, 4]


def test_of_equal_scores_the_lower_index_lives_longer():
    score_at, _ = scripted([1.0] * 6, [1.0] * 6)
    assert ranks_of_death(score_at, SIX, 2, 0.25)["a"].tolist() == [5, 4, 3, 2, 1, 0]


def test_no_iteration_and_a_nan_score_are_refused():
    with pytest.raises(SpecError, match="iterations: 0 is not allowed; allowed: >= 1"):
        iterated(magnitude, 0)
    score_at, _ = scripted([1.0, 2, 3, 4, 5, float("nan")])
    with pytest.raises(DivergedError, match=r"scores\.a: NaN"):
        ranks_of_death(score_at, SIX, 2, 0.25)


# ---- the criteria


def criterion_scores(name: str, network: nn.Module, batches: list[Batch], density: float) -> Scores:
    return CRITERIA[name].score(network, batches, seeding.generator(0), density=density)


@pytest.mark.parametrize("density", [0.05, 0.4])
@pytest.mark.parametrize("name", ["snip_iterative", "force"])
def test_the_mask_at_its_density_is_that_of_the_explicit_loop(name: str, density: float):
    network, batches = network_and_batches()
    counts = [keep_count(density ** ((iteration + 1) / 30), 69) for iteration in range(30)]
    trail = by_explicit_loop(network, batches, counts, revive=name == "force")
    scores = criterion_scores(name, network, batches, density)
    assert flat(global_topk(scores, density)).tolist() == trail[-1].tolist()
    assert flat(scores).sort().values.tolist() == list(range(69))


def test_iterated_snip_at_each_density_on_the_way_is_the_mask_of_that_iteration():
    network, batches = network_and_batches()
    counts = [keep_count(0.05 ** ((iteration + 1) / 30), 69) for iteration in range(30)]
    scores = flat(criterion_scores("snip_iterative", network, batches, 0.05))
    for count, mask in zip(counts, by_explicit_loop(network, batches, counts, revive=False), strict=True):
        assert best(scores, count).tolist() == mask.tolist()


def test_in_force_pruned_weights_come_back_and_its_trail_orders_the_rest():
    network, batches = network_and_batches()
    counts = [keep_count(0.1 ** ((iteration + 1) / 30), 69) for iteration in range(30)]
    trail = torch.stack(by_explicit_loop(network, batches, counts, revive=True))
    assert (~trail[:-1] & trail[1:]).any()  # else this network shows nothing
    last_seen = torch.tensor([max([index + 1 for index, mask in enumerate(trail) if mask[weight]], default=0) for weight in range(69)])
    scores = flat(criterion_scores("force", network, batches, 0.1))
    assert last_seen[scores.argsort(descending=True)].diff().max() <= 0  # falling: who left the masks later is kept longer
    assert not torch.equal(best(scores, 7), best(flat(criterion_scores("snip_iterative", network, batches, 0.1)), 7))


def test_iterating_magnitude_is_the_identity_at_every_density_ties_included():
    network, batches = network_and_batches()
    with torch.no_grad():
        network[0].weight.mul_(10).round_()
    once, iterative = (criterion_scores(name, network, batches, 0.03) for name in ("magnitude", "magnitude_iterative"))
    for count in range(1, 70):
        assert masks.checksum(global_topk(once, count / 69)) == masks.checksum(global_topk(iterative, count / 69))


class WeightTimesGradient(nn.Module):
    """A scorer that reads scaled weight and gradient from the features."""

    def forward(self, features: Tensor) -> Tensor:
        columns = [features[:, FEATURE_NAMES.index(name)] for name in ("weight_scaled", "gradient_scaled")]
        return (columns[0] * columns[1]).abs()


def test_a_fitted_scorer_can_be_iterated():
    network, batches = network_and_batches()
    network = network.float()
    batches = [(images.float(), labels) for images, labels in batches]
    once = as_criterion(WeightTimesGradient())
    twice = iterated(once, 2)(network, batches, seeding.generator(0), density=0.16)
    # by hand: cut to 0.4, score the pruned copy, cut the survivors to 0.16
    pruned = copy.deepcopy(network)
    first = global_topk(once(network, batches, seeding.generator(0), density=0.16), 0.4)
    masks.apply_(pruned, first)
    second = global_topk(once(pruned, batches, seeding.generator(0), density=0.16), 0.16, alive=first)
    assert masks.checksum(global_topk(twice, 0.4)) == masks.checksum(first)
    assert masks.checksum(global_topk(twice, 0.16)) == masks.checksum(second)
    shot = global_topk(once(network, batches, seeding.generator(0), density=0.16), 0.16)
    assert masks.checksum(second) != masks.checksum(shot)  # else iterating would show nothing here
