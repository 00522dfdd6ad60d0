"""A network as a table: the scores and the cut of `prune`, whatever the scorer's second head is; and what is no table."""

import json
from typing import Any

import pytest
import torch
from torch import nn

import autosparse
from autosparse.library.scorer import Scorer
from autosparse.library.weight_table import Table, score_table, weight_table
from autosparse.models.criteria.paths import Paths
from autosparse.models.errors import SpecError
from autosparse.models.networks.build import build_network
from autosparse.models.scorers.allocation_head import Allocation
from autosparse.models.scorers.registry import build_scorer
from autosparse.models.specs.run_specs import NetworkSpec

DESCRIBED = {"name": "resnet8", "width": 4, "image_shape": [1, 8, 8], "num_classes": 10}
ASKED: dict[str, Any] = {"density": 0.1, "network": json.dumps(DESCRIBED)}
HEADS = {
    "global": None,
    "learned": Allocation(slopes=(1.0, 0.1, 0, 0, 0, 0), offsets=(0.1, 0, 0, 0.2, 0, 0), final_density=0.05, sharpness=5.0),
    "paths": Paths(contrast=1.0, contrast_ahead=1.0, blend=0.0),
}


def scorer(head: str) -> Scorer:
    module = build_scorer("mlp", hidden=(4,), seed=1).eval()
    module.allocation = HEADS[head]  # type: ignore[assignment]
    return Scorer(module, {}, head)


def network() -> nn.Module:
    return build_network(NetworkSpec(name="resnet8", width=4), image_shape=(1, 8, 8), num_classes=10, seed=3)


def batches() -> list[Any]:
    return [(torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 10)]


@pytest.fixture(scope="module")
def table() -> Table:
    return weight_table(network(), batches())


def test_a_row_is_a_weight(table: Table) -> None:
    net = network()
    first = next(iter(net.parameters()))
    assert first.shape == (4, 1, 3, 3)
    assert table["shape"][:36] == ["4x1x3x3"] * 36
    assert table["weight"][:36] == first.reshape(-1).tolist()
    nn.functional.cross_entropy(net.train()(batches()[0][0]), batches()[0][1]).backward()
    assert first.grad is not None
    torch.testing.assert_close(torch.tensor(table["gradient"][:36]), first.grad.reshape(-1))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("floor", [0, 3])
def test_it_is_cut_as_prune_cuts(head: str, floor: int, table: Table) -> None:
    options: dict[str, Any] = {"seed": 7, "min_per_layer": floor}
    mask = autosparse.prune(network(), batches(), method=scorer(head), density=0.1, warn=False, **options)
    found = score_table(scorer(head), table, **ASKED, **options)
    flat = {name: keep.reshape(-1).tolist() for name, keep in mask.items()}
    assert [bool(one) for one in found["keep"]] == [one for name in dict.fromkeys(table["layer"]) for one in flat[name]]
    assert sum(found["keep"]) == mask.kept
    lowest = min(score for score, keep in zip(found["score"], found["keep"], strict=True) if keep)
    if not floor:
        assert all(score <= lowest for score, keep in zip(found["score"], found["keep"], strict=True) if not keep)


def test_a_scorer_of_paths_tells_networks_apart_by_the_table_and_not_by_a_seed(table: Table) -> None:
    changed = {**table, "weight": [-2 * weight for weight in table["weight"][:36]] + table["weight"][36:]}
    assert score_table(scorer("paths"), changed, **ASKED)["score"] != score_table(scorer("paths"), table, **ASKED)["score"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"density": 1.5}, r"^density: 1\.5 is not allowed; allowed: > 0 and <= 1$"),
        ({"network": ""}, r"^network: '' is not allowed; allowed: JSON such as .*: this scorer cuts by paths through the network$"),
        ({"network": "[1]"}, r"^network: '\[1\]' is not allowed; allowed: JSON such as "),
        (
            {"network": json.dumps({**DESCRIBED, "name": "os:system"})},
            r"^network\.name: 'os:system' is not allowed; allowed: .*torchvision:NAME",
        ),
        ({"network": json.dumps({**DESCRIBED, "wide": 4})}, r"^network\.wide: "),
        (
            {"network": json.dumps({**DESCRIBED, "width": 8})},
            r"^network: resnet8 has no \S+ of shape \(4, 1, 3, 3\); allowed: the network of ",
        ),
    ],
)
def test_what_cannot_be_asked_is_one_line(changes: dict[str, Any], said: str, table: Table) -> None:
    with pytest.raises(SpecError, match=said):
        score_table(scorer("paths"), table, **{**ASKED, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shape": ["2x3"] * 4}, r"^shape of a: '2x3' is not allowed; allowed: one shape of 4 weights, as 16x3x3x3"),
        ({"shape": ["2x2", "2x2", "4x1", "2x2"]}, r"^shape of a: "),
        ({"shape": ["4"] * 4}, r"^shape of a: '4' "),
        ({"shape": [None] * 4}, r"^shape of a: 'None' "),
        ({"weight": ["x"] * 4}, r"^weight: .* is not allowed; allowed: numbers$"),
        ({"gradient": [float("nan")] * 4}, r"a: weight spread 1\.0, gradient size nan are not allowed"),
        ({"layer": []}, r"^table: 0 rows are not allowed; allowed: one row per prunable weight$"),
    ],
)
def test_what_is_no_table_is_one_line(changes: dict[str, Any], said: str) -> None:
    good = {"layer": ["a"] * 4, "shape": ["2x2"] * 4, "weight": [1.0, -1.0, 1.0, -1.0], "gradient": [0.1, 0.2, 0.3, 0.4]}
    assert score_table(scorer("global"), good, density=0.5)["keep"].count(1) == 2
    with pytest.raises(autosparse.AutosparseError, match=said):
        score_table(scorer("global"), {**good, **changes}, density=0.5)


def test_a_column_that_is_missing_is_named() -> None:
    with pytest.raises(SpecError, match=r"^table: 'layer, shape, weight without gradient' "):
        score_table(scorer("global"), {"layer": ["a"], "shape": ["1x1"], "weight": [1.0]}, density=0.5)
