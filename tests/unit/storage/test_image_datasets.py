from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from autosparse.models.errors import DataError, SpecError
from autosparse.storage.image_datasets import DATASETS
from tests.image_sets import DARK, GREY, RED, encoded, load, write_folder, write_parquet


def write_pair(folder: Path, **fields: Any) -> Path:
    """Train = red (cat), dark (dog), red (dog); test = dark (cat)."""
    names: Any = {"names": ["cat", "dog"]} | fields
    write_parquet(folder / "train.parquet", [encoded(RED), encoded(DARK), encoded(RED)], [0, 1, 1], **names)
    write_parquet(folder / "test.parquet", [encoded(DARK)], [0], **names)
    return folder


def test_digits_are_the_first_1437_and_the_last_360_scaled_to_bytes():
    digits = load("digits", None)
    assert digits.train_images.shape == (1437, 1, 8, 8) and digits.test_images.shape == (360, 1, 8, 8)
    assert digits.train_images.dtype == np.uint8 and digits.train_labels.dtype == np.int64
    assert digits.train_images[0, 0, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]  # 0 0 5 13 9 1 0 0 of sixteen
    assert digits.train_labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1] and digits.classes == tuple("0123456789")
    assert digits.train_images.max() == 255 and np.bincount(digits.test_labels).tolist() == [35, 36, 35, 37, 37, 37, 37, 36, 33, 37]


def test_digits_take_no_path():
    with pytest.raises(SpecError, match=r"^data.path: '/somewhere' is not allowed; allowed: none for digits"):
        load("digits", "/somewhere")


def test_parquet_pixels_labels_and_classes(tmp_path: Path):
    data = load("parquet", write_pair(tmp_path))
    assert data.train_images.tolist() == [
        [[[250, 0]], [[0, 0]], [[0, 0]]],
        [[[9, 1]], [[9, 2]], [[9, 3]]],
        [[[250, 0]], [[0, 0]], [[0, 0]]],
    ]
    assert data.train_labels.tolist() == [0, 1, 1] and data.test_labels.tolist() == [0] and data.classes == ("cat", "dog")
    assert data.train_images.dtype == np.uint8 and data.train_labels.dtype == np.int64 and len(data.digest) == 32


def test_limits_take_the_first_rows_and_change_the_digest(tmp_path: Path):
    write_pair(tmp_path)
    whole, two, more = (load("parquet", tmp_path, train_limit=limit) for limit in (None, 2, 99))
    assert two.train_labels.tolist() == [0, 1] and len(two.test_labels) == 1
    assert two.digest != whole.digest and more.digest == whole.digest


def test_rows_beyond_the_limit_are_not_decoded(tmp_path: Path):
    write_pair(tmp_path)
    write_parquet(tmp_path / "train.parquet", [encoded(RED), b"broken"], [0, 1], names=["cat", "dog"])
    assert len(load("parquet", tmp_path, train_limit=1).train_labels) == 1


def test_shards_in_the_order_of_their_names_and_validation_in_place_of_test(tmp_path: Path):
    write_parquet(tmp_path / "train-00001-of-00002.parquet", [encoded(DARK)], [2], column="image")
    write_parquet(tmp_path / "train-00000-of-00002.parquet", [encoded(RED), encoded(RED)], [0, 1], column="image")
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", [encoded(DARK)], [1], column="image")
    data = load("parquet", tmp_path)
    assert data.train_labels.tolist() == [0, 1, 2] and data.train_images[2, 0, 0].tolist() == [9, 1]
    assert data.test_labels.tolist() == [1] and data.classes == ("0", "1", "2")
    assert load("parquet", tmp_path, train_limit=1).classes == ("0", "1", "2"), "classes do not depend on the limit"


def test_the_same_content_has_the_same_digest_in_another_place_format_and_cache(tmp_path: Path):
    first = load("parquet", write_pair(tmp_path / "a"))
    moved = load("parquet", write_pair(tmp_path / "b", column="image"), cache=tmp_path / "cache")
    again = load("parquet", tmp_path / "b", cache=tmp_path / "cache")
    files = {"train/cat/1.png": RED, "train/dog/1.png": DARK, "train/dog/2.png": RED, "test/cat/1.png": DARK}
    write_folder(tmp_path / "c", {name: encoded(pixels) for name, pixels in files.items()})
    assert first.digest == moved.digest == again.digest == load("image_folder", tmp_path / "c").digest
    write_parquet(tmp_path / "a" / "test.parquet", [encoded(DARK)], [1], names=["cat", "dog"])
    assert load("parquet", tmp_path / "a").digest != first.digest
    assert load("parquet", write_pair(tmp_path / "a", names=["cat", "dog", "elk"])).digest != first.digest, "a wider classifier"


def test_grey_images_have_one_channel_and_colour_sets_may_hold_grey_ones(tmp_path: Path):
    write_parquet(tmp_path / "train.parquet", [encoded(GREY), encoded(GREY, mode="1")], [0, 0])
    write_parquet(tmp_path / "test.parquet", [encoded(GREY)], [0])
    assert load("parquet", tmp_path).test_images.tolist() == [[GREY]]
    write_parquet(tmp_path / "train.parquet", [encoded([[[5, 5, 5]] * 2] * 2), encoded(GREY)], [0, 0])
    write_parquet(tmp_path / "test.parquet", [encoded(GREY, mode="RGB")], [0])
    assert load("parquet", tmp_path).train_images[1].tolist() == [GREY] * 3


BAD_ROWS: dict[str, tuple[list[bytes | None], list[Any], str]] = {
    "no image": (
        [encoded(RED), b"no image"],
        [0, 1],
        r"row 1: not a readable image \(unknown format\); allowed: image files that Pillow reads",
    ),
    "cut": ([encoded([[[9] * 3] * 64] * 64)[:60]], [0], r"row 0: not a readable image \("),
    "cut jpeg": ([encoded([[[9] * 3] * 64] * 64, "JPEG")[:400]], [0], r"row 0: not a readable image \("),
    "no bytes": ([None], [0], r"row 0: no image bytes"),
    "no label": ([encoded(RED), encoded(RED)], [0, None], r"row 1: no label"),
    "size": ([encoded(RED), encoded(RED * 2)], [0, 1], r"row 1: 2 x 2, but the first image is 2 x 1; allowed: one size .*, or data.size"),
    "floats": ([encoded(GREY, "TIFF", mode="F")], [0], r"row 0: pixel mode F; allowed: image files that Pillow reads, 8 bits per channel"),
    "empty": ([], [], r"no rows"),
}


@pytest.mark.parametrize(("images", "labels", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_named_with_its_file(tmp_path: Path, images: list[bytes | None], labels: list[Any], message: str):
    write_pair(tmp_path)
    write_parquet(tmp_path / "train.parquet", images, labels)
    with pytest.raises(DataError, match=rf"^{tmp_path}/train.parquet:? {message}[^\n]*$"):
        load("parquet", tmp_path)


@pytest.mark.parametrize(("labels", "wrong"), [([0, 2], 2), ([0, -1], -1)])
def test_labels_outside_the_classes_are_refused(tmp_path: Path, labels: list[int], wrong: int):
    write_pair(tmp_path)
    write_parquet(tmp_path / "test.parquet", [encoded(RED)] * 2, labels)
    with pytest.raises(DataError, match=rf"^{tmp_path}/test.parquet row 1: label {wrong} is not allowed; allowed: 0 to 1$"):
        load("parquet", tmp_path)


def test_train_and_test_of_other_sizes_are_refused(tmp_path: Path):
    write_pair(tmp_path)
    write_parquet(tmp_path / "test.parquet", [encoded(GREY)], [0])
    with pytest.raises(DataError, match=r"train and test images have shapes \[3, 1, 2\] and \[3, 2, 2\]; allowed: .*, or data.size"):
        load("parquet", tmp_path)


def test_missing_and_corrupt_parquet_files_are_named(tmp_path: Path):
    for path in (None, "gs://bucket/set"):
        with pytest.raises(SpecError, match=r"^data.path: .* is not allowed; allowed: a local folder, s3://bucket/prefix$"):
            load("parquet", path)
    with pytest.raises(DataError, match=r"^data.path: /not/there has no train.parquet, train-\*.parquet or train/"):
        load("parquet", "/not/there")
    write_pair(tmp_path)
    whole = (tmp_path / "test.parquet").read_bytes()
    for broken in (whole[:-9], b"", b"PAR1 and nothing else"):
        (tmp_path / "test.parquet").write_bytes(broken)
        with pytest.raises(DataError, match=rf"^{tmp_path}/test.parquet: not a complete Parquet file \([^\n]+\)$"):
            load("parquet", tmp_path)
    (tmp_path / "test.parquet").unlink()
    with pytest.raises(
        DataError,
        match=rf"^data.path: {tmp_path} has no test split with labels \(test, .*; allowed: one, or data.test_share",
    ):
        load("parquet", tmp_path)


def test_page_checksums_are_checked_where_there_are_any(tmp_path: Path):
    table, path = pq.read_table(write_pair(tmp_path) / "test.parquet"), tmp_path / "test.parquet"
    pq.write_table(table, path, write_page_checksum=True, compression="none", use_dictionary=False)
    assert load("parquet", tmp_path).test_labels.tolist() == [0]
    end = encoded(DARK)[-12:]  # the last chunk of a PNG; Pillow does not need it
    path.write_bytes(path.read_bytes().replace(end, b"\0" * 12))
    with pytest.raises(DataError, match=rf"^{path}: not a complete Parquet file \(.*CRC"):
        load("parquet", tmp_path)


def test_an_unknown_name_suggests_a_known_one():
    assert set(DATASETS) == {"digits", "parquet", "cifar10", "cifar100", "mnist", "fashion_mnist", "image_folder"}
    with pytest.raises(SpecError, match=r"^data.name: 'cifar1O' is not known; did you mean 'cifar10'\?"):
        load("cifar1O", None)


def test_image_folder_takes_one_image_of_each_class_in_turn(tmp_path: Path):
    red, dark = encoded(RED), encoded(DARK)
    files = {"train/b/1.PNG": dark, "train/a/1.png": red, "train/a/2.bmp": encoded(RED, "BMP"), "train/a/3.png": red, "test/b/x.png": red}
    data = load("image_folder", write_folder(tmp_path, files | {"train/a/readme.txt": b"no image"}))
    assert data.classes == ("a", "b") and data.train_labels.tolist() == [0, 1, 0, 0] and data.test_labels.tolist() == [1]
    assert data.train_images[:, 0, 0].tolist() == [[250, 0], [9, 1], [250, 0], [250, 0]]
    assert load("image_folder", tmp_path, train_limit=2).train_labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train/a/1.png": b"broken", "test/a/1.png": encoded(RED)}, r"{root}/train/a/1.png: not a readable image"),
        (
            {"train/a/1.png": encoded(RED), "train/b/1.png": encoded(RED * 2), "test/a/1.png": encoded(RED)},
            r"{root}/train/b/1.png: 2 x 2, but the first image is 2 x 1",
        ),
        ({"train/a/1.txt": b""}, r"{root}/train/a: a class without an image"),
        ({"train/a/1.png": encoded(RED)}, r"data.path: {root} has no test split with labels"),
        ({"train/a/1.png": encoded(RED), "test/c/1.png": encoded(RED)}, r"{root}/test/c: not a class of {root}/train; allowed: a"),
    ],
)
def test_bad_image_folders_are_named(tmp_path: Path, files: dict[str, bytes], message: str):
    with pytest.raises(DataError, match="^" + message.format(root=tmp_path)):
        load("image_folder", write_folder(tmp_path, files))


@pytest.mark.parametrize("name", ["image_folder", "cifar10"])
def test_sets_in_folders_take_local_paths_only(name: str):
    for path in (None, "s3://bucket/set"):
        with pytest.raises(SpecError, match=r"^data.path: .* is not allowed; allowed: a local folder$"):
            load(name, path)
