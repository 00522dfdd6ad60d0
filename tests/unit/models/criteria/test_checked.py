"""A criterion of somebody else: found by name, and held to what a criterion promises."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autosparse.models.criteria.checked import checked
from autosparse.models.criteria.contract import Criterion
from autosparse.models.criteria.registry import CRITERIA, find_criterion
from autosparse.models.errors import DivergedError, SpecError
from autosparse.models.masks.allocation import global_topk, uniform_topk
from autosparse.models.masks.mask import checksum, prunable
from autosparse.models.seeding import generator
from examples import own_criterion
from tests.plugins import outside

Change = Any  # scores or mask -> what a criterion gives instead


def network() -> nn.Module:
    """Weights 1, 2, 3 and 4, -5, 6; a BatchNorm between them."""
    made = nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    with torch.no_grad():
        made.get_parameter("0.weight").copy_(torch.tensor([[1.0], [2.0], [3.0]]))
        made.get_parameter("2.weight").copy_(torch.tensor([[4.0, -5.0, 6.0]]))
    return made


def score(criterion: Criterion) -> dict[str, Tensor]:
    return checked("mine:x", criterion).score(network(), [], generator(0), head=True, density=0.5)


def test_a_name_points_to_a_function_or_to_a_criterion_with_its_own_allocation() -> None:
    assert find_criterion("snip") is CRITERIA["snip"]
    assert find_criterion("tests.plugins.outside:size") == Criterion(outside.size, global_topk)
    assert find_criterion("tests.plugins.outside:SIZE_PER_LAYER") == Criterion(outside.size, uniform_topk)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("sinp", "'sinp' is not known; did you mean 'snip'?"),
        ("tests.plugins.outside:NUMBER", "(not callable: it is a int)"),
        ("tests.plugins.outside:nothing", "(wrong signature: too many positional arguments)"),
        ("tests.plugins.outside:DECAY", "(not callable: it is a Method)"),
        ("tests.plugins.outside:missing", "(no such object: "),
        ("tests.plugins.broken:x", "(not importable: RuntimeError: no licence found)"),
    ],
)
def test_what_is_no_criterion_is_one_line(name: str, why: str) -> None:
    with pytest.raises(SpecError) as caught:
        find_criterion(name, "fanout.methods")
    assert str(caught.value).startswith(f"fanout.methods: '{name}' is not ") and why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_allocation_that_cannot_be_called_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "SIZE_PER_LAYER", Criterion(outside.size, lambda scores, density: scores))
    with pytest.raises(SpecError, match=r"allowed: an allocation .* \(wrong signature: got an unexpected keyword argument 'floor'\)"):
        find_criterion("tests.plugins.outside:SIZE_PER_LAYER")


def test_what_is_right_passes_in_the_order_of_the_network() -> None:
    def reversed_order(*given: Any, **keywords: Any) -> dict[str, Tensor]:
        return dict(reversed(outside.size(*given, **keywords).items()))

    scores = score(Criterion(reversed_order))
    assert list(scores) == ["0.weight", "2.weight"]
    assert [scores[layer].flatten().tolist() for layer in scores] == [[1, 2, 3], [4, 5, 6]]
    mask = checked("mine:x", Criterion(reversed_order)).allocate(scores, 0.5, floor=1)
    assert [mask[layer].flatten().tolist() for layer in mask] == [[False, False, True], [False, True, True]]
    assert checksum(mask) == checksum(global_topk(scores, 0.5, floor=1))


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            lambda found: list(found.values()),
            SpecError,
            "mine:x: scores in a list are not allowed; allowed: a dict of tensors by parameter name",
        ),
        (lambda found: None, SpecError, "mine:x: scores in a NoneType are not allowed"),
        (
            lambda found: {"0.weight": found["0.weight"], "0.bias": found["0.weight"]},
            SpecError,
            "mine:x: scores too many: 0.bias, missing: 2.weight; allowed: one for each prunable weight",
        ),
        (lambda found: {}, SpecError, "mine:x: scores too many: none, missing: 0.weight 2.weight"),
        (
            lambda found: found | {"0.weight": found["0.weight"].flatten()},
            SpecError,
            "mine:x: scores of 0.weight as (3,) are not allowed; allowed: a tensor of shape (3, 1)",
        ),
        (lambda found: found | {"0.weight": 1.0}, SpecError, "mine:x: scores of 0.weight as float are not allowed"),
        (
            lambda found: found | {"0.weight": found["0.weight"] > 0},
            SpecError,
            "mine:x: scores of 0.weight of type torch.bool are not allowed",
        ),
        (
            lambda found: found | {"2.weight": found["2.weight"] * math.nan},
            DivergedError,
            "mine:x: NaN among the scores of 2.weight is not allowed; allowed: numbers (-inf too)",
        ),
    ],
)
def test_wrong_scores_are_one_line_that_names_the_criterion(change: Change, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        score(Criterion(lambda *given, **keywords: change(outside.size(*given, **keywords))))  # type: ignore[arg-type]
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_infinite_scores_are_allowed() -> None:
    found = score(
        Criterion(lambda *given, **keywords: {name: value * -math.inf for name, value in outside.size(*given, **keywords).items()})
    )
    assert found["0.weight"].isinf().all()


@pytest.mark.parametrize(("kind", "name"), [("parameter", "2.bias"), ("buffer", "1.running_mean")])
def test_a_criterion_that_changes_the_network_is_refused(kind: str, name: str) -> None:
    @torch.no_grad()
    def spoils(network: Any, *given: Any, **keywords: Any) -> dict[str, Tensor]:
        getattr(network, f"get_{kind}")(name).add_(1)
        return outside.size(network, *given, **keywords)

    with pytest.raises(SpecError, match=f"^mine:x: a changed {re.escape(name)} is not allowed"):
        score(Criterion(spoils))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda mask: list(mask), "mine:x: masks in a list are not allowed"),
        (lambda mask: {"0.weight": mask["0.weight"]}, "mine:x: masks too many: none, missing: 2.weight"),
        (
            lambda mask: {name: keep.float() for name, keep in mask.items()},
            "mine:x: a mask of 0.weight of type torch.float32 is not allowed",
        ),
        (
            lambda mask: {name: keep | True for name, keep in mask.items()},
            "mine:x: 6 weights kept are not allowed; allowed: 3, density 0.5 of 6",
        ),
        (
            lambda mask: {name: keep & False | (name == "2.weight") for name, keep in mask.items()},
            "mine:x: 0 weights kept of 0.weight are not allowed; allowed: at least 1",
        ),
    ],
)
def test_wrong_masks_are_one_line_that_names_the_criterion(change: Change, message: str) -> None:
    criterion = Criterion(outside.size, lambda *given, **keywords: change(global_topk(*given, **keywords)))
    with pytest.raises(SpecError) as caught:
        checked("mine:x", criterion).allocate(score(Criterion(outside.size)), 0.5, floor=1)
    assert str(caught.value).startswith(message)


def test_the_example_by_hand() -> None:
    made = network()
    scores = find_criterion("examples.own_criterion:lamp").score(made, [], generator(0), head=True, density=0.5)
    assert scores["0.weight"].flatten().tolist() == pytest.approx([1 / 14, 4 / 13, 1])
    assert scores["2.weight"].flatten().tolist() == pytest.approx([16 / 77, 25 / 61, 1])
    assert {name: value.shape for name, value in scores.items()} == {name: value.shape for name, value in prunable(made).items()}
    mask = find_criterion("examples.own_criterion:PER_LAYER").allocate(scores, 1 / 3)
    assert [keep.flatten().tolist() for keep in mask.values()] == [[False, False, True]] * 2
    assert own_criterion.recipe().fanout.methods == ("magnitude", "examples.own_criterion:lamp", "scorer")
