"""Pictures as the field's libraries show them, through image folders of one class."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from autosparse.models.errors import DataError
from tests.image_sets import GREY, encoded, load, write_folder

STREAM = np.random.default_rng(0)


def saved(image: Image.Image, format: str = "PNG", **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **more)
    return file.getvalue()


def shown(folder: Path, *files: bytes, ending: str = "png", **fields: Any) -> np.ndarray:
    """The training images, decoded, (N, C, H, W)."""
    train = {f"train/a/{number}.{ending}": data for number, data in enumerate(files)}
    return load("image_folder", write_folder(folder, train | {f"test/a/0.{ending}": files[0]}), **fields).train_images


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pictures_are_turned_as_their_orientation_says(tmp_path: Path, format: str, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(STREAM.integers(0, 256, (3, 5, 3), np.uint8)), format, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    found = shown(tmp_path, data, ending=format.lower())
    assert found[0].transpose(1, 2, 0).tolist() == expected.tolist() and found.shape[2:] == ((3, 5) if orientation < 5 else (5, 3))


def test_a_quarter_turn_by_hand(tmp_path: Path):
    """Orientation 6: the camera was held so that the first row is the right side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    assert shown(tmp_path, saved(Image.fromarray(np.array([[1, 2], [3, 4]], np.uint8)), exif=exif))[0, 0].tolist() == [[3, 1], [4, 2]]


def test_a_broken_orientation_tag_turns_nothing(tmp_path: Path):
    data = saved(Image.fromarray(np.array(GREY, np.uint8)), exif=b"Exif\0\0MM\0*\0\0\0\xff broken")
    assert shown(tmp_path, data)[0, 0].tolist() == GREY


ALPHA = np.array([[0, 128, 255]], np.uint8)  # one row of three pixels: not there, half, there


def test_alpha_is_composed_on_white(tmp_path: Path):
    """Black with alpha 128 on white is 255 * (1 - 128 / 255) = 127."""
    colour = np.zeros((1, 3, 4), np.uint8)
    colour[..., 3] = ALPHA
    assert shown(tmp_path / "rgba", saved(Image.fromarray(colour)))[0].tolist() == [[[255, 127, 0]]] * 3
    assert shown(tmp_path / "la", saved(Image.fromarray(np.stack([np.zeros_like(ALPHA), ALPHA], 2))))[0].tolist() == [[[255, 127, 0]]]
    palette = Image.fromarray(np.array([[0, 1, 1]], np.uint8)).convert("P")
    palette.putpalette([10, 20, 30, 0, 0, 250])
    assert shown(tmp_path / "p", saved(palette, transparency=0))[0].tolist() == [[[255, 0, 0]], [[255, 0, 0]], [[255, 250, 250]]]
    assert shown(tmp_path / "opaque", saved(palette))[0].tolist() == [[[10, 0, 0]], [[20, 0, 0]], [[30, 250, 250]]]
    assert shown(tmp_path / "key", saved(Image.fromarray(np.array([[7, 8]], np.uint8)), transparency=7))[0].tolist() == [[[255, 8]]]


def test_what_is_opaque_keeps_its_bytes(tmp_path: Path):
    """So did sets with an alpha channel that says nothing, before alpha was composed."""
    colour = STREAM.integers(0, 256, (16, 16, 3), np.uint8)
    opaque = np.dstack([colour, np.full((16, 16), 255, np.uint8)])
    assert (shown(tmp_path / "rgba", saved(Image.fromarray(opaque)))[0] == colour.transpose(2, 0, 1)).all()
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (shown(tmp_path / "la", saved(Image.fromarray(np.dstack([grey, np.full_like(grey, 255)]))))[0, 0] == grey).all()


def test_palette_cmyk_and_one_bit(tmp_path: Path):
    red = Image.new("RGB", (2, 1), (255, 0, 0))
    assert shown(tmp_path / "p", saved(red.convert("P")))[0].tolist() == [[[255, 255]], [[0, 0]], [[0, 0]]]
    assert shown(tmp_path / "gif", saved(red, "GIF"), ending="gif")[0].tolist() == [[[255, 255]], [[0, 0]], [[0, 0]]]
    found = shown(tmp_path / "cmyk", saved(red.convert("CMYK"), "TIFF"), ending="tif")
    assert found[0].tolist() == [[[255, 255]], [[0, 0]], [[0, 0]]]
    assert shown(tmp_path / "1", saved(Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")))[0].tolist() == [[[0, 255]]]


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_not_clipped(tmp_path: Path, format: str):
    deep = Image.fromarray(np.array([[0, 255, 256, 32768, 65535]], np.uint16))
    assert shown(tmp_path, saved(deep, format), ending=format.lower())[0].tolist() == [[[0, 0, 1, 128, 255]]]


def test_one_picture_in_colour_makes_all_of_them_colour(tmp_path: Path):
    colour, grey = [[[1, 2, 3]] * 2] * 2, encoded(GREY)
    found = shown(tmp_path / "among", grey, encoded(colour), grey)
    assert found[0].tolist() == [GREY] * 3 and found[1, :, 0, 0].tolist() == [1, 2, 3] and found[2].tolist() == [GREY] * 3
    assert shown(tmp_path / "grey", grey, grey).shape == (2, 1, 2, 2)
    for half, other in (("train", "test"), ("test", "train")):
        files = {f"{half}/a/1.png": encoded(colour), f"{other}/a/1.png": grey}
        for cache in (None, tmp_path / "cache", tmp_path / "cache"):
            data = load("image_folder", write_folder(tmp_path / half, files), cache)
            assert data.train_images.shape == data.test_images.shape == (1, 3, 2, 2)
            assert getattr(data, f"{other}_images")[0].tolist() == [GREY] * 3


def test_data_size_resizes_the_shorter_side_and_crops_the_middle(tmp_path: Path):
    """4 x 8 to 2 x 4, each pixel of the result from two by two of flat blocks, then the middle 2 x 2."""
    blocks = np.repeat(np.repeat(np.array([[0, 50, 100, 150]] * 2, np.uint8), 2, 0), 2, 1)
    wide = encoded(blocks)
    assert shown(tmp_path / "exact", encoded(np.full((2, 2), 9)), size=2).tolist() == [[[[9, 9], [9, 9]]]]
    found = shown(tmp_path / "crop", wide, size=4)
    assert found.shape == (1, 1, 4, 4) and (found[0, 0] == blocks[:, 2:6]).all(), "only cropped: the shorter side is right already"
    assert shown(tmp_path / "up", encoded(np.full((1, 3), 7)), size=8).tolist() == [[[[7] * 8] * 8]]


def test_data_size_antialiases(tmp_path: Path):
    """A fine chequerboard is grey at a quarter of its size; without antialiasing it stays black or white."""
    board = np.indices((64, 64)).sum(0) % 2 * 255
    found = shown(tmp_path, encoded(board), size=16)
    assert abs(found.astype(int) - 127).max() <= 2


def test_mixed_sizes_name_data_size_and_have_one_with_it(tmp_path: Path):
    files = [encoded(STREAM.integers(0, 256, (8 + i % 5, 10 + i % 3, 3))) for i in range(12)]
    with pytest.raises(DataError, match=r"1.png: 11 x 9, but the first image is 10 x 8; allowed: .* or data.size, to which"):
        shown(tmp_path, *files)
    assert shown(tmp_path, *files, size=6).shape == (12, 3, 6, 6)
    cached = [shown(tmp_path, *files, size=size, cache=tmp_path / "cache").shape[-1] for size in (6, 7, 6)]
    assert cached == [6, 7, 6], "the size is part of the cache's key"
    digests = {load("image_folder", tmp_path, size=size).digest for size in (6, 7)}
    assert len(digests) == 2


@pytest.mark.parametrize("size", [4, 32])
def test_sets_of_arrays_have_a_size_too(size: int):
    assert load("digits", None, size=size, train_limit=5, test_limit=5).train_images.shape == (5, 1, size, size)


def test_images_that_cannot_be_decoded_are_all_named_up_to_ten(tmp_path: Path):
    good = encoded(GREY)
    with pytest.raises(DataError) as error:
        shown(tmp_path / "two", good, b"broken", good, b"")
    named = f"{tmp_path}/two/train/a"
    assert str(error.value) == (
        f"2 of 4 images cannot be used: {named}/1.png: not a readable image (unknown format), {named}/3.png: no image bytes; "
        "allowed: image files that Pillow reads, 8 bits per channel or 16 bits grey"
    )
    with pytest.raises(DataError, match=r"^12 of 13 images cannot be used: .* and 2 more; allowed: [^\n]*$") as error:
        shown(tmp_path / "many", good, *[b"x"] * 12)
    assert str(error.value).count("not a readable image") == 10


@pytest.mark.parametrize("data", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", b"\xd7\xcd\xc6\x9a" + bytes(40)])
def test_what_would_start_another_program_is_no_picture(tmp_path: Path, data: bytes):
    with pytest.raises(DataError, match=r"not a readable image \(unknown format\)"):
        shown(tmp_path, data)
