"""A fitted scorer as two files, with and without the packages of the pipeline around it."""

import json
from pathlib import Path

import pytest
import torch

from autosparse.library.scorer_files import load_scorer, save_scorer
from autosparse.models.errors import DataError
from autosparse.models.features import FEATURE_NAMES
from autosparse.models.scorers.registry import build_scorer, restored_scorer
from autosparse.storage.open_store import open_store
from autosparse.storage.scorer_files import parse_scorer_files, read_scorer_files
from autosparse.storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = open_store(str(tmp_path))
    save_scorer(found, "scorer", build_scorer("mlp", hidden=(4,), seed=1), {"metrics": {"a": 1}})
    return found


def test_both_doors_give_the_scorer_that_was_saved(store: Store) -> None:
    rows = torch.randn(5, len(FEATURE_NAMES), generator=torch.Generator().manual_seed(0))
    expected = build_scorer("mlp", hidden=(4,), seed=1).eval()(rows)
    scorer, card = load_scorer(store, "scorer")
    described, tensors = read_scorer_files(store, "scorer")
    assert card == described and card["metrics"] == {"a": 1}
    assert torch.equal(scorer(rows), expected)
    assert torch.equal(restored_scorer(described["scorer"], tensors, "here")(rows), expected)


def test_tensors_of_another_scorer_are_refused_by_name(store: Store) -> None:
    described, _ = read_scorer_files(store, "scorer")
    others = build_scorer("mlp", hidden=(5,), seed=1).state_dict()
    with pytest.raises(DataError, match=r"^scorer: tensors of here do not fit its card"):
        restored_scorer(described["scorer"], others, "here")


@pytest.mark.parametrize("card", [b"no JSON", b"[]", json.dumps({"metrics": {}}).encode(), b'{"scorer": 1}'])
def test_a_card_that_describes_no_scorer_is_refused_by_name(store: Store, card: bytes) -> None:
    with pytest.raises(DataError, match=r"^scorer: here has no readable card"):
        parse_scorer_files(card, store.read("scorer/scorer.safetensors"), "here")
