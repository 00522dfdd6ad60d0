"""Criteria: values on paper, against autograd in float64, and one template over the whole registry."""

import copy
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from autosparse.models import seeding
from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.criteria.synaptic_flow import flow
from autosparse.models.errors import DivergedError
from autosparse.models.gradients import Loss
from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import keep_count
from autosparse.models.masks.linearised import linearised
from autosparse.models.masks.mask import Mask, Scores, prunable
from autosparse.models.specs.run_specs import LOOKING_AHEAD

ALL = sorted(set(CRITERIA) - set(LOOKING_AHEAD))


def score(name: str, network: nn.Module, batches: list[tuple[Tensor, Tensor]], *, seed: int = 0, density: float = 0.1) -> Scores:
    return CRITERIA[name].score(network, batches, seeding.generator(seed, "criterion"), density=density)


def chain(first: list, second: list, *, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Two linear layers without biases; weights[out][in]."""
    layers = [torch.tensor(weights, dtype=dtype) for weights in (first, second)]
    network = nn.Sequential(*(nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=dtype) for weight in layers))
    with torch.no_grad():
        for param, weight in zip(network.parameters(), layers, strict=True):
            param.copy_(weight)
    return network


def conv_network() -> nn.Sequential:
    with seeding.scoped(5, "test"):
        network = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.5),
            nn.Conv2d(4, 6, 3),
            nn.Flatten(),
            nn.Linear(24, 3),
        )
        network(torch.randn(8, 3, 8, 8))  # running statistics of their own
    return network


def image_batches() -> list[tuple[Tensor, Tensor]]:
    stream = torch.Generator().manual_seed(3)
    return [(torch.randn(6, 3, 8, 8, generator=stream), torch.randint(0, 3, (6,), generator=stream)) for _ in range(2)]


def smooth_case() -> tuple[nn.Sequential, list[tuple[Tensor, Tensor]]]:
    with seeding.scoped(9, "test"):
        network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).double()
        batches = [(torch.randn(7, 3, dtype=torch.float64), torch.randint(0, 3, (7,))) for _ in range(3)]
    return network, batches


def flattened(values: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([part.detach().reshape(-1) for part in values.values()])


def mean_loss(network: nn.Sequential, batches: list[tuple[Tensor, Tensor]], flat: Tensor, loss: Loss) -> Tensor:
    """Mean over batches as a function of all prunable weights in one vector."""
    params = prunable(network)
    parts = flat.split([param.numel() for param in params.values()])
    weights = {name: part.view(param.shape) for part, (name, param) in zip(parts, params.items(), strict=True)}
    return torch.stack([loss(functional_call(copy.deepcopy(network), weights, (images,)), labels) for images, labels in batches]).mean()


def at_temperature_200(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits / 200, labels)


# ---- the template: what holds for every criterion


def test_the_registry_has_these_criteria():
    assert " ".join(ALL) == (
        "erk force grasp magnitude magnitude_iterative ntk_sap phew random smallest_paths snip snip_iterative synflow uniform uniform_plus"
    )


def test_the_page_of_criteria_has_a_row_for_each():
    page = (Path(__file__).parents[4] / "docs" / "criteria.md").read_text()
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)) == sorted(CRITERIA)


@pytest.mark.parametrize("name", ALL)
def test_scores_have_names_and_shapes_of_the_prunable_weights(name: str):
    network = conv_network()
    scores = score(name, network, image_batches())
    assert {layer: values.shape for layer, values in scores.items()} == {layer: param.shape for layer, param in prunable(network).items()}
    assert list(scores) == ["0.weight", "5.weight", "7.weight"]
    assert all(values.is_floating_point() and values.isfinite().all() and not values.requires_grad for values in scores.values())


@pytest.mark.parametrize("name", ALL)
def test_the_head_can_be_left_out(name: str):
    stream = seeding.generator(0, "criterion")
    assert list(CRITERIA[name].score(conv_network(), image_batches(), stream, head=False, density=0.1)) == ["0.weight", "5.weight"]


@pytest.mark.parametrize("name", ALL)
def test_the_network_is_left_as_it_was_bit_for_bit(name: str):
    network = conv_network()
    network[5].eval()
    before, modes = copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]
    state = torch.random.get_rng_state()
    score(name, network, image_batches())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    assert all(param.grad is None and param.requires_grad for param in network.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", ALL)
def test_frozen_weights_and_no_grad_change_no_score(name: str):
    network, batches = conv_network(), image_batches()
    expected = score(name, network, batches)
    network.requires_grad_(False)
    with torch.no_grad():
        scores = score(name, network, batches)
    assert all(torch.equal(scores[layer], expected[layer]) for layer in expected)
    assert not any(param.requires_grad for param in network.parameters())


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_gives_the_same_scores_and_exact_counts(name: str):
    network, batches = conv_network(), image_batches()
    first, second = (score(name, network, batches, seed=4) for _ in range(2))
    assert all(torch.equal(first[layer], second[layer]) for layer in first)
    for density in (0.5, 0.1):
        mask = CRITERIA[name].allocate(first, density, floor=1)
        assert masks.kept(mask) == keep_count(density, masks.total(mask))
        assert masks.collapsed_layers(mask) == []


@pytest.mark.parametrize("name", [name for name in ALL if name != "erk"])
def test_masks_of_one_score_vector_are_nested(name: str):
    scores = score(name, conv_network(), image_batches(), density=0.02)
    cuts = [CRITERIA[name].allocate(scores, density) for density in (0.5, 0.2, 0.05, 0.02)]
    assert all(masks.overlap(larger, smaller) == 1.0 for larger, smaller in pairwise(cuts))


# ---- random, erk, magnitude


@pytest.mark.parametrize("name", ["random", "erk", "uniform", "uniform_plus"])
def test_random_scores_differ_by_seed(name: str):
    first, second = (score(name, conv_network(), [], seed=seed) for seed in (0, 1))
    assert not any(torch.equal(first[layer], second[layer]) for layer in first)


def test_random_masks_have_equal_layer_densities_and_erk_has_its_own():
    network = nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 4))
    uniform = masks.layer_densities(CRITERIA["random"].allocate(score("random", network, []), 0.1))
    assert all(0.05 < density < 0.15 for density in uniform.values())
    erk = masks.layer_densities(CRITERIA["erk"].allocate(score("erk", network, []), 0.1))  # 1,040 weights at 200 : 104
    assert erk == {"0.weight": 684 / 10_000, "1.weight": 356 / 400}


def test_magnitude_on_paper():
    network = chain([[0.1, -0.9]], [[0.5], [-0.4]])
    scores = score("magnitude", network, [])
    assert {name: values.tolist() for name, values in scores.items()} == {
        "0.weight": [[pytest.approx(0.1), pytest.approx(0.9)]],
        "1.weight": [[0.5], [pytest.approx(0.4)]],
    }
    mask = CRITERIA["magnitude"].allocate(scores, 0.5)
    assert {name: keep.tolist() for name, keep in mask.items()} == {"0.weight": [[False, True]], "1.weight": [[True], [False]]}


# ---- snip and grasp


def test_snip_on_paper():
    # equal logits: softmax is (1/2, 1/2), so dL/dlogits = (-1/2, 1/2) for label 0 and g = outer of it with the input (1, 4)
    network = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[4.0, 1.0], [8.0, 0.0]]))
    scores = score("snip", network, [(torch.tensor([[1.0, 4.0]]), torch.tensor([0]))])
    assert scores["weight"].tolist() == [[2.0, 2.0], [4.0, 0.0]]


def test_snip_is_the_sensitivity_to_a_gate_on_each_weight():
    network, batches = smooth_case()
    flat = flattened(prunable(network))
    gates = torch.ones_like(flat).requires_grad_()
    (slope,) = torch.autograd.grad(mean_loss(network, batches, flat * gates, cross_entropy), gates)
    torch.testing.assert_close(flattened(score("snip", network, batches)), slope.abs(), rtol=1e-12, atol=1e-15)


def test_grasp_is_weight_times_explicit_hessian_times_gradient():
    network, batches = smooth_case()
    flat = flattened(prunable(network))
    hessian = torch.autograd.functional.hessian(lambda weights: mean_loss(network, batches, weights, at_temperature_200), flat)
    gradient = torch.autograd.functional.jacobian(lambda weights: mean_loss(network, batches, weights, at_temperature_200), flat)
    scores = flattened(score("grasp", network, batches))
    torch.testing.assert_close(scores, flat * (hessian @ gradient), rtol=1e-9, atol=1e-18)


def test_grasp_on_paper():
    # one input of 1, equal logits, label 0, T = 200: g = (-1, 1) / 2T, H = [[1, -1], [-1, 1]] / 4T^2, so H g = (-1, 1) / 4T^3
    network = chain([[2.0], [2.0]], [[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)[0]
    scores = score("grasp", network, [(torch.ones(1, 1).double(), torch.tensor([0]))])
    assert scores["weight"].tolist() == [[pytest.approx(-2 / (4 * 200**3))], [pytest.approx(2 / (4 * 200**3))]]


def official_grasp_mask(network: nn.Sequential, batches: list[tuple[Tensor, Tensor]], removed: int) -> Tensor:
    """Remove the `removed` weights of the highest -theta * H g, with the whole Hessian."""
    flat = flattened(prunable(network))
    hessian = torch.autograd.functional.hessian(lambda weights: mean_loss(network, batches, weights, at_temperature_200), flat)
    gradient = torch.autograd.functional.jacobian(lambda weights: mean_loss(network, batches, weights, at_temperature_200), flat)
    mask = torch.ones_like(flat, dtype=torch.bool)
    mask[(-flat * (hessian @ gradient)).topk(removed).indices] = False
    return mask


def test_grasp_alone_has_the_official_sign_and_none_has_the_opposite():
    network, batches = smooth_case()
    official = official_grasp_mask(network, batches, removed=18)  # of 24
    inverted = ~official_grasp_mask(network, batches, removed=6)
    cuts = {name: flattened(CRITERIA[name].allocate(score(name, network, batches, density=0.25), 0.25)) for name in ALL}
    assert [name for name, mask in cuts.items() if torch.equal(mask, official)] == ["grasp"]
    assert not any(torch.equal(mask, inverted) for mask in cuts.values())


@pytest.mark.parametrize("rank", [0, 10, -1])
def test_shrinking_a_weight_changes_the_squared_gradient_norm_by_minus_twice_its_grasp_score(rank: int):
    network, batches = smooth_case()
    flat, scores = flattened(prunable(network)), flattened(score("grasp", network, batches))
    weight = int(scores.argsort()[rank])

    def norm_with(share: float) -> float:
        moved = flat.clone()
        moved[weight] *= share
        gradient = torch.autograd.functional.jacobian(lambda weights: mean_loss(network, batches, weights, at_temperature_200), moved)
        return float(gradient @ gradient)

    slope = (norm_with(1 - 1e-4) - norm_with(1 + 1e-4)) / 2e-4
    assert slope == pytest.approx(-2 * float(scores[weight]), rel=1e-5)


def test_grasp_keeps_first_what_the_gradient_flow_would_miss_most():
    network, batches = smooth_case()
    scores = score("grasp", network, batches)
    best = flattened(CRITERIA["grasp"].allocate(scores, 0.04))
    assert flattened(scores)[best.bool()].min() == flattened(scores).max() > 0


# ---- synflow

CHAIN = ([[1.0, -2.0], [0.5, 0.25], [-3.0, 1.0]], [[2.0, -1.0, 0.5], [-0.125, 4.0, 1.0]])


def closed_form(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Of a two-layer linear chain: |w_ji| times what leaves unit j, and |v_kj| times what enters it."""
    first, second = first.abs(), second.abs()
    return first * second.sum(0)[:, None], second * first.sum(1)[None, :]


def test_flow_of_a_two_layer_chain_on_paper():
    linear = linearised(chain(*CHAIN))
    scores = flow(linear, prunable(linear), torch.ones(1, 2, dtype=torch.float64))
    # columns of |v| sum to 2.125, 5, 1.5; rows of |w| to 3, 0.75, 4
    assert scores["0.weight"].tolist() == [[2.125, 4.25], [2.5, 1.25], [4.5, 1.5]]
    assert scores["1.weight"].tolist() == [[6.0, 0.75, 2.0], [0.375, 3.0, 4.0]]


def test_flow_is_conserved_from_layer_to_layer():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4, bias=False))
    linear = linearised(network)
    first, second = (float(values.sum()) for values in flow(linear, prunable(linear), torch.ones(1, 3, 4, 4).double()).values())
    assert first == pytest.approx(second, rel=1e-12)


def test_linearised_is_a_copy_with_absolute_values_and_batchnorm_by_running_statistics():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    linear = linearised(network)
    assert all((value >= 0).all() for value in linear.state_dict().values())
    outputs = linear(torch.ones(1, 2).double())
    weight, bias = (param.detach().double().abs() for param in network[0].parameters())
    expected = (weight.sum(1) + bias) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(outputs[0], expected)


def iterated_by_closed_form(first: Tensor, second: Tensor, counts: list[int]) -> tuple[Tensor, Tensor]:
    """Prune the chain to these counts one after the other by a stable sort over both layers."""
    for count in counts:
        scores = torch.cat([part.reshape(-1) for part in closed_form(first, second)])
        keep = torch.zeros(len(scores), dtype=torch.bool)
        keep[scores.sort(descending=True, stable=True).indices[:count]] = True
        first = first * keep[: first.numel()].view(first.shape)
        second = second * keep[first.numel() :].view(second.shape)
    return first != 0, second != 0


@pytest.mark.parametrize("asked", [0.05, 0.3])
def test_synflow_at_its_density_is_the_iterated_closed_form(asked: float):
    stream = torch.Generator().manual_seed(2)
    first, second = torch.randn(9, 12, generator=stream).double(), torch.randn(7, 9, generator=stream).double()
    network = chain(first.tolist(), second.tolist(), dtype=torch.float64)
    scores = score("synflow", network, [(torch.zeros(1, 12), torch.zeros(1))], density=asked)
    mask = CRITERIA["synflow"].allocate(scores, asked)
    counts = [keep_count(asked ** ((iteration + 1) / 100), 171) for iteration in range(100)]
    expected = iterated_by_closed_form(first, second, counts)
    assert torch.equal(mask["0.weight"], expected[0]) and torch.equal(mask["1.weight"], expected[1])


def test_synflow_on_the_way_is_the_same_schedule_stopped_there():
    stream = torch.Generator().manual_seed(2)
    first, second = torch.randn(9, 12, generator=stream).double(), torch.randn(7, 9, generator=stream).double()
    network = chain(first.tolist(), second.tolist(), dtype=torch.float64)
    scores = score("synflow", network, [(torch.zeros(1, 12), torch.zeros(1))], density=0.05)
    for density in (0.6, 0.2, 0.11):
        asked = keep_count(density, 171)
        counts = [keep_count(0.05 ** ((iteration + 1) / 100), 171) for iteration in range(100)]
        expected = iterated_by_closed_form(first, second, [*(count for count in counts if count > asked), asked])
        mask = CRITERIA["synflow"].allocate(scores, density)
        assert torch.equal(mask["0.weight"], expected[0]) and torch.equal(mask["1.weight"], expected[1])


def test_synflow_scores_are_the_ranks_of_death():
    ranks = flattened(score("synflow", conv_network(), image_batches(), density=0.02))
    assert ranks.sort().values.tolist() == list(range(len(ranks)))


def test_equal_flows_go_by_index():
    network = chain([[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0]])
    scores = score("synflow", network, [(torch.zeros(1, 2), torch.zeros(1))], density=1.0)
    assert scores["1.weight"].tolist() == [[5.0, 4.0]]
    assert scores["0.weight"].tolist() == [[3.0, 2.0], [1.0, 0.0]]


def low_density_mask(name: str, network: nn.Module) -> Mask:
    return CRITERIA[name].allocate(score(name, network, [(torch.zeros(1, 16), torch.zeros(1))], density=0.02), 0.02)


def test_synflow_keeps_every_layer_where_magnitude_loses_two():
    with seeding.scoped(1, "test"):  # PyTorch's own init: 1/4 bounds the first layer, 1/8 the two others
        network = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    assert masks.collapsed_layers(low_density_mask("magnitude", network)) == ["2.weight", "4.weight"]
    assert masks.collapsed_layers(low_density_mask("synflow", network)) == []


def test_a_flow_beyond_float64_is_refused():
    huge = chain([[1e200]], [[1e200]], dtype=torch.float64)
    with pytest.raises(DivergedError, match="synflow: a flow of inf"):
        score("synflow", huge, [(torch.zeros(1, 1), torch.zeros(1))])
