"""A scorer beside the criteria: the same call, the same scores in any chunks, and no trace in the network."""

import copy

import pytest
import torch
from torch import Tensor, nn

from autosparse.models.features import FEATURE_NAMES, feature_matrix, layer_facts
from autosparse.models.gradients import mean_gradients
from autosparse.models.masks.mask import prunable
from autosparse.models.scorers.criterion import as_criterion, score_weights
from autosparse.models.scorers.mlp import MlpScorer
from autosparse.models.scorers.resnet_lift import ResNetScorer
from autosparse.models.seeding import generator, scoped


class Magnitude(nn.Module):
    """Reads the scaled magnitude out of the features and counts the rows it is given."""

    def __init__(self, chunk_rows: int = 50) -> None:
        super().__init__()
        self.chunk_rows = chunk_rows
        self.calls: list[int] = []

    def forward(self, features: Tensor) -> Tensor:
        self.calls.append(len(features))
        return features[:, FEATURE_NAMES.index("weight_scaled")].abs()


@pytest.fixture
def network() -> nn.Module:
    with scoped(7, "network"):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 10)
        )


@pytest.fixture
def batches() -> list[tuple[Tensor, Tensor]]:
    stream = generator(7, "batches")
    return [(torch.randn(6, 1, 8, 8, generator=stream), torch.randint(10, (6,), generator=stream)) for _ in range(2)]


def learned(scorer: nn.Module, network: nn.Module, batches: list[tuple[Tensor, Tensor]], *, head: bool = True, chunk: int | None = None):
    return as_criterion(scorer, chunk=chunk)(network, batches, generator(0), head=head, density=0.1)


def test_scores_have_names_order_and_shapes_of_the_prunable_weights(network, batches):
    scores = learned(MlpScorer(), network, batches)
    assert [(name, tuple(score.shape)) for name, score in scores.items()] == [("0.weight", (4, 1, 3, 3)), ("5.weight", (10, 144))]
    assert all(score.dtype == torch.float32 and not score.requires_grad for score in scores.values())
    assert list(learned(MlpScorer(), network, batches, head=False)) == ["0.weight"]


def test_each_score_stands_at_the_place_of_its_weight(network, batches):
    network.to(memory_format=torch.channels_last)
    for name, score in learned(Magnitude(), network, batches, chunk=5).items():
        weight = prunable(network)[name].detach()
        torch.testing.assert_close(score, weight.abs() / weight.std(correction=0))


@pytest.mark.parametrize("scorer", [MlpScorer(seed=1), ResNetScorer(width=2, seed=1)], ids=["mlp", "resnet18"])
def test_chunks_change_nothing(network, batches, scorer):
    small, large = (learned(scorer, network, batches, chunk=chunk) for chunk in (7, 1000))
    for name in small:
        torch.testing.assert_close(small[name], large[name], rtol=1e-5, atol=1e-6)
        assert small[name].std() > 0


def test_no_more_than_a_chunk_is_in_memory(network, batches):
    scorer = Magnitude()
    learned(scorer, network, batches, chunk=100)
    assert scorer.calls == [36, *[100] * 14, 40]


def test_scores_are_those_of_the_data_sets_gradients(network, batches):
    scorer = MlpScorer(seed=1).eval()
    params = prunable(network)
    gradients = mean_gradients(network, batches, params)
    scores = learned(scorer, network, batches)
    for facts in layer_facts(params, gradients):
        expected = scorer(feature_matrix(params[facts.name].flatten(), gradients[facts.name].flatten(), facts))
        torch.testing.assert_close(scores[facts.name].flatten(), expected.detach())
    assert not torch.equal(learned(scorer, network, batches[:1])["0.weight"], scores["0.weight"])


def test_network_and_scorer_are_left_as_they_were(network, batches):
    scorer = ResNetScorer(width=2)
    before, modes = copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]
    knows = copy.deepcopy(scorer.state_dict())
    learned(scorer, network, batches)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    assert all(parameter.grad is None for parameter in (*network.parameters(), *scorer.parameters()))
    assert all(torch.equal(value, knows[name]) for name, value in scorer.state_dict().items())


def test_score_weights_uses_the_scorers_own_chunk():
    scorer = Magnitude(chunk_rows=3)
    weight = torch.arange(1.0, 9.0).view(2, 4)
    (facts,) = layer_facts({"fc": weight}, {"fc": weight})
    assert score_weights(scorer, weight, weight, facts).shape == (2, 4)
    assert scorer.calls == [3, 3, 2]
