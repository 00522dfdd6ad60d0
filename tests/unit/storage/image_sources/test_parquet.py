import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autosparse.models.errors import DataError, SpecError
from autosparse.models.specs.run_specs import DataSpec
from autosparse.storage.image_sources.parquet import ParquetImages
from autosparse.storage.open_store import open_store
from tests.image_sets import DARK, RED, encoded, load, write_parquet
from tests.s3_server import BUCKET, KEY, SECRET, s3_server

PAIR = [encoded(RED), encoded(DARK)]

LAYOUTS = {
    "one file each": ("train.parquet", "test.parquet"),
    "shards": ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"),
    "data": ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
    "hashes": ("data/train-00000-of-00001-8f2ab4c1d9.parquet", "data/test-00000-of-00001-0e1.parquet"),
    "converted": ("default/train/0000.parquet", "default/test/0000.parquet"),
    "configuration": ("plain_text/train-00000-of-00001.parquet", "plain_text/test-00000-of-00001.parquet"),
    "configuration in data": ("data/full/train-0.parquet", "data/full/test-0.parquet"),
    "folders": ("train/a.parquet", "test/b.parquet"),
    "folders in data": ("data/train/a.parquet", "data/test/b.parquet"),
    "training": ("training.parquet", "test.parquet"),
    **{word: ("train.parquet", f"{word}-00000-of-00001.parquet") for word in ("validation", "valid", "val", "dev", "eval")},
    "valid folder": ("x/train/0000.parquet", "x/valid/0000.parquet"),
}


@pytest.mark.parametrize(("train", "test"), LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_is_read_and_gives_the_same_digest(tmp_path: Path, train: str, test: str):
    write_parquet(tmp_path / "plain" / "train.parquet", PAIR, [0, 1])
    write_parquet(tmp_path / "plain" / "test.parquet", PAIR[:1], [1])
    (tmp_path / "set").mkdir()
    for half, name in (("train", train), ("test", test)):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "plain" / f"{half}.parquet", tmp_path / "set" / name)
    found = load("parquet", tmp_path / "set")
    assert found.train_labels.tolist() == [0, 1] and found.test_labels.tolist() == [1]
    assert found.digest == load("parquet", tmp_path / "plain").digest and not found.notes


def test_the_shards_of_data_are_read_in_their_order(tmp_path: Path):
    for shard, labels in enumerate(([0, 1], [2, 0])):
        write_parquet(tmp_path / "data" / f"train-{shard:05d}-of-00002.parquet", PAIR, labels)
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", PAIR, [0, 2])
    assert load("parquet", tmp_path).train_labels.tolist() == [0, 1, 2, 0]


def test_what_lies_in_the_path_itself_comes_before_folders(tmp_path: Path):
    write_parquet(tmp_path / "train.parquet", PAIR, [0, 1])
    write_parquet(tmp_path / "test.parquet", PAIR, [0, 1])
    for other in ("data/train-0.parquet", "old/train.parquet", "older/train.parquet"):
        write_parquet(tmp_path / other, PAIR, [1, 1])
    assert load("parquet", tmp_path).train_labels.tolist() == [0, 1]


def test_several_configurations_are_listed_and_data_path_takes_one(tmp_path: Path):
    for name, label in (("cropped", 0), ("full", 1)):
        write_parquet(tmp_path / name / "train-0.parquet", PAIR, [label] * 2)
        write_parquet(tmp_path / name / "test-0.parquet", PAIR, [label] * 2)
    with pytest.raises(
        DataError, match=rf"^data.path: {tmp_path} has several configurations; allowed: one of {tmp_path}/cropped, {tmp_path}/full$"
    ):
        load("parquet", tmp_path)
    assert load("parquet", tmp_path / "full").train_labels.tolist() == [1, 1]


@pytest.mark.parametrize("missing", [[-1, -1], [None, None], [-1, None]])
def test_a_test_split_without_labels_is_passed_over_for_a_validation_split(tmp_path: Path, missing: list[int | None]):
    write_parquet(tmp_path / "train.parquet", PAIR, [0, 1])
    write_parquet(tmp_path / "test.parquet", PAIR, missing)
    with pytest.raises(
        DataError, match=rf"^data.path: {tmp_path} has no test split with labels .*; allowed: one, or data.test_share[^\n]*$"
    ):
        load("parquet", tmp_path)
    write_parquet(tmp_path / "validation.parquet", PAIR, [1, 0])
    found = load("parquet", tmp_path, tmp_path / "cache")
    assert found.test_labels.tolist() == [1, 0] and found.notes == ("the split test has no labels and is passed over",)
    assert load("parquet", tmp_path, tmp_path / "cache").notes == found.notes, "the cache tells it too"


def test_a_test_split_with_some_labels_is_refused(tmp_path: Path):
    write_parquet(tmp_path / "train.parquet", PAIR, [0, 1])
    write_parquet(tmp_path / "test.parquet", PAIR, [0, -1])
    write_parquet(tmp_path / "validation.parquet", PAIR, [1, 0])
    with pytest.raises(DataError, match=rf"^{tmp_path}/test.parquet row 1: label -1 is not allowed; allowed: 0 to 1$"):
        load("parquet", tmp_path)


@pytest.mark.parametrize("label", ["labels", "fine_label", "class", "target"])
def test_the_only_label_column_of_an_obvious_name_is_taken(tmp_path: Path, label: str):
    for half in ("train", "test"):
        write_parquet(tmp_path / f"{half}.parquet", PAIR, [0, 1], label=label, id=pa.array([7, 8]))
    assert load("parquet", tmp_path).train_labels.tolist() == [0, 1]


def test_fine_and_coarse_labels_are_listed_and_data_label_takes_one(tmp_path: Path):
    for half in ("train", "test"):
        coarse = pa.array([3, 2], pa.int64())
        write_parquet(tmp_path / f"{half}.parquet", PAIR, [0, 1], label="fine_label", names=["ape", "bee"], coarse_label=coarse)
    with pytest.raises(SpecError, match=r"^data.label: None is not allowed; allowed: fine_label, coarse_label, which are columns of "):
        load("parquet", tmp_path)
    fine, coarse = load("parquet", tmp_path, label="fine_label"), load("parquet", tmp_path, label="coarse_label")
    assert fine.train_labels.tolist() == [0, 1] and fine.classes == ("ape", "bee")
    assert coarse.train_labels.tolist() == [3, 2] and coarse.classes == ("0", "1", "2", "3")
    with pytest.raises(SpecError, match=r"^data.label: 'fine' is not allowed; allowed: fine_label, coarse_label, which are columns of "):
        load("parquet", tmp_path, label="fine")


TYPES: dict[str, tuple[pa.Array, list[int], tuple[str, ...]]] = {
    "text": (pa.array(["dog", "cat"]), [1, 0], ("cat", "dog")),
    "large text": (pa.array(["dog", "cat"], pa.large_string()), [1, 0], ("cat", "dog")),
    "dictionary": (pa.array(["dog", "cat"]).dictionary_encode(), [1, 0], ("cat", "dog")),
    "dictionary of numbers": (pa.array([2, 0]).dictionary_encode(), [2, 0], ("0", "1", "2")),
    "true and false": (pa.array([True, False]), [1, 0], ("False", "True")),
    "int8": (pa.array([1, 0], pa.int8()), [1, 0], ("0", "1")),
    "uint64": (pa.array([1, 0], pa.uint64()), [1, 0], ("0", "1")),
}


@pytest.mark.parametrize(("labels", "numbers", "classes"), TYPES.values(), ids=TYPES)
def test_labels_of_every_type_become_classes(tmp_path: Path, labels: pa.Array, numbers: list[int], classes: tuple[str, ...]):
    write_parquet(tmp_path / "train.parquet", PAIR, labels)
    write_parquet(tmp_path / "test.parquet", PAIR[:1], labels[:1])
    found = load("parquet", tmp_path)
    assert found.train_labels.tolist() == numbers and found.classes == classes and found.test_labels.tolist() == numbers[:1]


BAD_LABELS: dict[str, tuple[pa.Array, pa.Array, str]] = {
    "a class that train has not": (
        pa.array(["a", "b"]),
        pa.array(["a", "c"]),
        r"row 1: label 'c' is no class of train; allowed: a, b$",
    ),
    "a text that is missing": (pa.array(["a", None]), pa.array(["a", "a"]), r"train.parquet row 1: no label; allowed: 0 to 0$"),
    "text and numbers": (pa.array(["a", "b"]), pa.array([0, 1]), r"^data.label: labels are string in .*, int64 in .*; allowed: one type$"),
    "too large": (pa.array([0, 2**64 - 1], pa.uint64()), pa.array([0, 1]), r"train.parquet: column label holds no labels \("),
    "an id": (
        pa.array([0, 10**9]),
        pa.array([0, 1]),
        r"column label: label 1000000000 is not allowed; allowed: 0 to 999999$",
    ),
}


@pytest.mark.parametrize(("train", "test", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_labels_that_mean_nothing_are_one_line(tmp_path: Path, train: pa.Array, test: pa.Array, message: str):
    write_parquet(tmp_path / "train.parquet", PAIR, train)
    write_parquet(tmp_path / "test.parquet", PAIR, test)
    with pytest.raises(DataError, match=message) as error:
        load("parquet", tmp_path)
    assert "\n" not in str(error.value)


STRUCT = {"bytes": encoded(RED), "path": "x.png"}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"img": [STRUCT]},
            r"none of the columns img: struct<.*> holds labels; allowed: whole numbers, true or false, or text$",
        ),
        ({"img": [STRUCT], "label": [0.5]}, r"none of the columns .*label: double holds labels"),
        (
            {"img": ["x"], "label": [0]},
            r"none of the columns img: string, label: int64 holds images; allowed: a struct with bytes",
        ),
        ({"a": [STRUCT], "b": [b"x"], "label": [0]}, r"^data.image: None is not allowed; allowed: a, b, which are columns of "),
        ({"img": [STRUCT], "id": [0]}, r"^data.label: None is not allowed; allowed: id, which are columns of "),
    ],
)
def test_columns_that_do_not_tell_are_one_line(tmp_path: Path, columns: dict[str, Any], message: str):
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    with pytest.raises((DataError, SpecError), match=message) as error:
        load("parquet", tmp_path)
    assert "\n" not in str(error.value)


def test_images_may_be_plain_bytes_or_in_a_column_that_data_image_names(tmp_path: Path):
    red, dark = encoded(RED), encoded(DARK)
    for half in ("train", "test"):
        pq.write_table(pa.table({"picture": [red, dark], "label": [0, 1]}), tmp_path / f"{half}.parquet")
    assert load("parquet", tmp_path).train_images[:, 0, 0].tolist() == [[250, 0], [9, 1]]
    for half in ("train", "test"):
        columns = {"before": [{"bytes": red}], "after": [{"bytes": dark}], "label": [0]}
        pq.write_table(pa.table(columns), tmp_path / f"{half}.parquet")
    assert load("parquet", tmp_path, image="after").train_images[:, 0, 0].tolist() == [[9, 1]]


def test_rows_are_fetched_by_number_from_the_row_groups_that_hold_them(tmp_path: Path):
    count, names = 23, []
    for shard, rows in enumerate((range(10), range(10, count))):
        pictures = [encoded([[row] * 2]) for row in rows]
        names.append(tmp_path / f"train-{shard}.parquet")
        write_parquet(names[-1], pictures, [row % 3 for row in rows], group=4)
    write_parquet(tmp_path / "test.parquet", [encoded([[0] * 2])], [0])
    rows = ParquetImages(DataSpec(name="parquet", path=str(tmp_path))).rows("train")
    assert rows is not None and rows.where(13) == f"{names[1]} row 3"
    for wanted in ([5], [22, 0, 9, 10, 11, 3], list(range(count)), list(range(count))[::-1], [7, 8]):
        assert rows.images(np.array(wanted), None, colour=False)[:, 0, 0, 0].tolist() == wanted
        fetched = {one.place: one.name for one in rows.fetch(np.array(wanted))}
        assert [fetched[place] for place in range(len(wanted))] == [rows.where(row) for row in wanted]


def test_columns_and_configurations_are_of_parquet_alone(tmp_path: Path):
    for name, path in (("digits", None), ("image_folder", tmp_path), ("mnist", tmp_path)):
        with pytest.raises(SpecError, match=rf"^data.label: 'fine' is not allowed; allowed: none for {name}, which has no columns$"):
            load(name, path, label="fine")
        with pytest.raises(SpecError, match=r"^data.image: 'a' is not allowed"):
            load(name, path, image="a")


def test_a_part_of_the_shards_is_read_and_said(tmp_path: Path):
    write_parquet(tmp_path / "train-00001-of-00003.parquet", PAIR, [0, 1])
    write_parquet(tmp_path / "test.parquet", PAIR, [0, 1])
    assert load("parquet", tmp_path).notes == ("train-00001-of-00003.parquet: 1 of 3 files are there, and these alone are read",)


@pytest.mark.s3
def test_s3_has_the_same_layouts_and_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for half, labels in (("train", [0, 1]), ("validation", [1, 0])):
        write_parquet(tmp_path / "set" / f"{half}.parquet", PAIR, labels)
    for name, value in {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    with s3_server(tmp_path / "s3") as (address, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        store = open_store(f"s3://{BUCKET}/sets")
        for half in ("train", "validation"):
            store.upload(tmp_path / "set" / f"{half}.parquet", f"full/data/{half}-00000-of-00001.parquet")
            store.upload(tmp_path / "set" / f"{half}.parquet", f"converted/default/{half}/0000.parquet")
        found = [load("parquet", f"s3://{BUCKET}/sets/{name}", tmp_path / "cache") for name in ("full", "converted")]
        with pytest.raises(
            DataError, match=rf"^data.path: s3://{BUCKET}/sets has several configurations; allowed: one of s3://{BUCKET}/sets/"
        ):
            load("parquet", f"s3://{BUCKET}/sets")
    assert {one.digest for one in found} == {load("parquet", tmp_path / "set").digest} and found[0].train_labels.tolist() == [0, 1]
