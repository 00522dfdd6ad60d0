"""Reparametrized weights: flow runs on what the network computes with, under the name the mask lies on."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from autosparse.models import seeding
from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.masks.mask import prunable
from autosparse.models.masks.reparametrized import copied, weights

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")

HOW: dict[str, tuple[Callable[[nn.Module], object], str]] = {
    "weight_norm": (parametrizations.weight_norm, "parametrizations.weight.original1"),
    "spectral_norm": (lambda layer: parametrizations.spectral_norm(layer.eval()), "parametrizations.weight.original"),
    "weight_norm of old": (weight_norm, "weight_v"),
    "spectral_norm of old": (lambda layer: spectral_norm(layer.eval()), "weight_orig"),
    "pruned before": (lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5), "weight_orig"),
}


def network_of(how: str) -> tuple[nn.Sequential, nn.Sequential, str]:
    """(reparametrized, plain with the same weights, name of the parameter)."""
    make, name = HOW[how]
    with seeding.scoped(0, "test"):
        network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))
        make(network[2])
    with torch.no_grad():
        for param in network[2].parameters():
            param.mul_(3.0)  # so that what it computes is not what it was made from
    network.eval()(torch.zeros(1, 6))
    plain = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))
    with torch.no_grad():
        for index in (0, 2, 4):
            plain[index].weight.copy_(network[index].weight)
            plain[index].bias.copy_(network[index].bias)
    return network, plain, f"2.{name}"


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("method", ["synflow", "smallest_paths"])
def test_scores_are_those_of_the_network_with_plain_weights(how: str, method: str) -> None:
    network, plain, name = network_of(how)
    assert name in prunable(network)
    batches = [(torch.zeros(2, 6), torch.zeros(2))]
    found, expected = (CRITERIA[method].score(one, batches, torch.Generator(), density=0.2) for one in (network, plain))
    expected[name] = expected.pop("2.weight")
    assert found.keys() == expected.keys()
    assert all(torch.equal(values, expected[key]) for key, values in found.items())


def test_what_was_pruned_before_stays_pruned() -> None:
    network, plain, name = network_of("pruned before")
    scores = CRITERIA["smallest_paths"].score(network, [(torch.zeros(2, 6), torch.zeros(2))], torch.Generator(), density=0.5)
    kept = CRITERIA["smallest_paths"].allocate(scores, 0.5)[name]
    assert kept.any() and not (kept & (plain[2].weight == 0)).any()


@pytest.mark.parametrize("how", HOW)
def test_a_copy_computes_the_same_and_is_its_own(how: str) -> None:
    network, plain, name = network_of(how)
    copy = copied(network)
    inputs = torch.rand(4, 6)
    assert torch.equal(copy.eval()(inputs), network(inputs))
    assert torch.equal(weights(network, [name])[name], plain[2].weight.detach())
    with torch.no_grad():
        for param in copy.parameters():
            param.zero_()
    assert torch.allclose(network(inputs), plain(inputs), atol=1e-6)


def test_weights_of_a_plain_network_are_its_own() -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    assert weights(network, ["0.weight"])["0.weight"].data_ptr() == network[0].weight.data_ptr()
