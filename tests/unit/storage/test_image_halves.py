from pathlib import Path

import numpy as np
import pytest

from autosparse.models.errors import DataError, SpecError
from autosparse.storage.image_halves import split_off, within
from tests.image_sets import DARK, RED, encoded, load, write_parquet


def labels_of(text: str) -> np.ndarray:
    return np.array([int(one) for one in text.replace(" ", "")])


def test_a_limit_takes_the_first_rows_where_they_hold_half_of_every_fair_share():
    assert within(labels_of("0101 1010"), 4).tolist() == [0, 1, 2, 3]
    assert within(labels_of("0001 0111"), 4).tolist() == [0, 1, 2, 3], "class 1 has one of two: half of its share"
    assert within(labels_of("0100 0000 0000"), 6).tolist() == list(range(6)), "a rare class has a small share"
    assert within(labels_of("0 1"), 2).tolist() == [0, 1]


def test_a_limit_takes_a_balanced_sample_where_they_do_not():
    assert within(labels_of("0000 1111"), 4).tolist() == [0, 4, 1, 5]
    assert within(labels_of("0000 1111"), 3).tolist() == [0, 4, 1], "every prefix is balanced"
    some = within(labels_of("2" * 60 + "0" * 60 + "1" * 10), 100)
    assert sorted(some[:3].tolist()) == [0, 60, 120]
    assert np.bincount(labels_of("2" * 60 + "0" * 60 + "1" * 10)[some]).tolist() == [45, 10, 45], "a class that ends leaves its turn"


def test_a_shuffled_set_keeps_its_first_rows_at_every_limit():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 500))
    changed = [limit for limit in range(2, 5000, 7) if within(labels, limit).tolist() != list(range(limit))]
    assert changed == []


@pytest.mark.parametrize("limit", [1, 2, 7, 10, 20, 64, 128, 256, 512, 1000])
def test_the_digits_keep_the_first_rows(limit: int):
    whole, some = load("digits", None), load("digits", None, train_limit=limit, test_limit=max(limit, 64))
    assert some.train_labels.tolist() == whole.train_labels[:limit].tolist() and (some.train_images == whole.train_images[:limit]).all()
    assert (some.test_images == whole.test_images[: max(limit, 64)]).all() and not some.notes


def test_a_limit_of_a_sorted_set_is_balanced_and_says_so(tmp_path: Path):
    for half in ("train", "test"):
        write_parquet(tmp_path / f"{half}.parquet", [encoded([[row] * 2]) for row in range(40)], [0] * 20 + [1] * 20)
    found = load("parquet", tmp_path, train_limit=4)
    assert found.train_labels.tolist() == [0, 1, 0, 1] and found.train_images[:, 0, 0, 0].tolist() == [0, 20, 1, 21]
    assert found.notes == ("train: the first 4 images are not of all classes alike, so that a balanced sample is taken",)
    assert len(found.test_labels) == 40


def test_a_share_is_split_off_of_every_class_by_the_seed():
    labels = labels_of("0" * 50 + "1" * 20 + "2" * 3)
    train, test = split_off(labels, 0.2, 0)
    assert sorted([*train, *test]) == list(range(73)) and train.tolist() == sorted(train) and test.tolist() == sorted(test)
    assert np.bincount(labels[test]).tolist() == [10, 4, 1]
    assert split_off(labels, 0.2, 0)[1].tolist() == test.tolist() != split_off(labels, 0.2, 1)[1].tolist()
    assert test[:4].tolist() == [4, 6, 14, 25], "the draw never changes: it is part of what a run is"


@pytest.mark.parametrize(("count", "share", "test"), [(2, 0.01, 1), (2, 0.99, 1), (1, 0.5, 0), (4, 0.5, 2), (10, 0.95, 9)])
def test_both_halves_have_every_class_that_has_two_rows(count: int, share: float, test: int):
    labels = np.array([0] * 10 + [1] * count)
    assert (labels[split_off(labels, share, 3)[1]] == 1).sum() == test


def train_only(folder: Path) -> Path:
    write_parquet(folder / "train.parquet", [encoded(RED), encoded(DARK)] * 10, [0, 1] * 10)
    return folder


def test_a_set_without_a_test_split_names_the_field_and_is_split_with_it(tmp_path: Path):
    with pytest.raises(DataError, match=rf"^data.path: {tmp_path} has no test split with labels .*; allowed: one, or data.test_share"):
        load("parquet", train_only(tmp_path))
    cache = tmp_path / "cache"
    found = load("parquet", tmp_path, cache, test_share=0.3)
    assert len(found.train_labels) == 14 and found.test_labels.tolist().count(0) == 3 and len(found.test_labels) == 6
    assert found.notes == (
        "train: 14 of 20 images, split by data.test_share 0.3",
        "test: 6 of 20 images, split by data.test_share 0.3",
    )
    assert load("parquet", tmp_path, cache, test_share=0.3).digest == found.digest
    assert len(load("parquet", tmp_path, cache, test_share=0.5).test_labels) == 10, "the share is part of the cache's key"
    assert len(load("parquet", tmp_path, cache, test_share=0.3, train_limit=4, test_limit=2).train_labels) == 4


def test_a_set_with_a_test_split_takes_no_share(tmp_path: Path):
    with pytest.raises(SpecError, match=r"^data.test_share: 0.2 is not allowed; allowed: 0, because digits has a test split of its own$"):
        load("digits", None, test_share=0.2)


def test_a_share_of_single_images_is_refused(tmp_path: Path):
    write_parquet(tmp_path / "train.parquet", [encoded(RED)] * 2, [0, 1])
    with pytest.raises(DataError, match=r"^data.test_share: 0.5 of 2 images is none; allowed: a set with two images of a class$"):
        load("parquet", tmp_path, test_share=0.5)
