from pathlib import Path

import pytest

from autosparse.models.errors import DataError
from tests.image_sets import DARK, RED, encoded, load, write_folder


def some(folder: str, count: int = 4) -> dict[str, bytes]:
    return {f"{folder}/{number}.png": encoded(RED) for number in range(count)}


def test_folders_below_a_class_and_all_endings_count(tmp_path: Path):
    """80 PNGs in two places and 40 TIFFs a class, half of which were read before."""
    files = {
        f"{half}/{name}/{place}{i}.png": encoded(RED)
        for half in ("train", "test")
        for name in ("cat", "dog")
        for place in ("", "day2/deep/")
        for i in range(40)
    }
    files |= {f"{half}/{name}/{i}.tif": encoded(DARK, "TIFF") for half in ("train", "test") for name in ("cat", "dog") for i in range(40)}
    found = load("image_folder", write_folder(tmp_path, files))
    assert len(found.train_labels) == len(found.test_labels) == 240 and found.classes == ("cat", "dog")
    assert found.train_labels.tolist() == [0, 1] * 120 and not found.notes


@pytest.mark.parametrize("ending", ["gif", "ppm", "tga", "jp2", "JFIF", "ico", "TIFF"])
def test_an_ending_that_pillow_reads_is_an_image(tmp_path: Path, ending: str):
    form = {"gif": "GIF", "ppm": "PPM", "tga": "TGA", "jp2": "JPEG2000", "JFIF": "JPEG", "ico": "ICO", "TIFF": "TIFF"}[ending]
    pixels = [[[90, 90, 90]] * 16] * 16
    found = load("image_folder", write_folder(tmp_path, {f"{half}/a/1.{ending}": encoded(pixels, form) for half in ("train", "test")}))
    assert found.image_shape == (3, 16, 16) and abs(int(found.train_images[0, 0, 3, 3]) - 90) <= 2


def test_what_is_left_out_is_counted(tmp_path: Path):
    names = ("a/x.txt", "a/sub/y.txt", "b/clip.mp4", "list.csv", "a/noending", "a/.hidden")
    more = {f"train/{name}": b"" for name in names}
    found = load("image_folder", write_folder(tmp_path, some("train/a") | some("train/b") | some("test/a") | more))
    assert found.notes == (f"{tmp_path}/train: 5 files are no images and left out (1 .csv, 1 .mp4, 2 .txt, 1 without an ending)",)


@pytest.mark.parametrize(
    ("half", "files"), [("train", {}), ("test", {}), ("train", {"train/bird/song.mp3": b"", "train/bird/deep/x.txt": b""})]
)
def test_a_class_without_an_image_is_refused(tmp_path: Path, half: str, files: dict[str, bytes]):
    write_folder(tmp_path, some("train/ape") | some("train/bird" if half == "test" else "train/bee") | some("test/ape") | files)
    (tmp_path / half / "bird").mkdir(exist_ok=True)
    with pytest.raises(DataError, match=rf"^{tmp_path}/{half}/bird: a class without an image; allowed: [^\n]*$"):
        load("image_folder", tmp_path)


def test_classes_directly_in_the_path_are_all_training_images_of_which_a_share_is_split_off(tmp_path: Path):
    write_folder(tmp_path, some("cat", 10) | some("dog", 5))
    with pytest.raises(DataError, match=rf"^data.path: {tmp_path} has no test split"):
        load("image_folder", tmp_path)
    found = load("image_folder", tmp_path, test_share=0.2)
    assert found.classes == ("cat", "dog") and sorted(found.test_labels.tolist()) == [0, 0, 1] and len(found.train_labels) == 12


def test_a_path_with_a_test_but_no_train_folder_is_no_set_of_classes(tmp_path: Path):
    with pytest.raises(DataError, match=rf"^data.path: {tmp_path} has no folder train; allowed: train/<class>/\*.png, or <class>/\*.png$"):
        load("image_folder", write_folder(tmp_path, some("test/a")), test_share=0.2)
    with pytest.raises(DataError, match=r"^data.path: .*nothing has no folder train"):
        load("image_folder", tmp_path / "nothing")


def test_linked_folders_are_followed_but_not_in_circles(tmp_path: Path):
    write_folder(tmp_path, some("elsewhere") | some("set/train/a", 1) | some("set/test/a", 1))
    (tmp_path / "set" / "train" / "a" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "set" / "train" / "a")
    assert len(load("image_folder", tmp_path / "set").train_labels) == 5


@pytest.mark.parametrize("word", ["valid", "validation", "val", "dev", "eval"])
def test_every_name_of_a_test_folder(tmp_path: Path, word: str):
    assert len(load("image_folder", write_folder(tmp_path, some("training/a") | some(f"{word}/a", 2))).test_labels) == 2
