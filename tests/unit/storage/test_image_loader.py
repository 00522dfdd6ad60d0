from pathlib import Path

import numpy as np
import pytest
import torch

from autosparse.models.errors import DataError
from autosparse.models.training.images import channel_statistics, statistics_of
from autosparse.storage.image_loader import ImageLoader, channel_sums
from autosparse.storage.image_pack import Packed, pack
from autosparse.storage.image_sources.decoding import Encoded
from tests.image_sets import GREY, encoded


def test_sums_of_four_pixels_on_paper():
    assert channel_sums(np.array([[[[1, 2], [3, 255]]]], np.uint8)) == ((4, 261, 1 + 4 + 9 + 65025),)


@pytest.mark.parametrize("pixels", [np.full((3, 3, 224, 224), 255, np.uint8), np.full((9, 1, 401, 307), 254, np.uint8)])
def test_sums_are_exact_where_float32_would_not_be(pixels: np.ndarray):
    value, count = int(pixels.flat[0]), pixels[:, 0].size
    assert channel_sums(pixels) == ((count, count * value, count * value**2),) * pixels.shape[1]


def test_mean_and_deviation_are_those_of_images_in_memory():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 33, 17), np.uint8)
    assert statistics_of(channel_sums(pixels)) == channel_statistics(pixels)


def packed(folder: Path) -> Packed:
    """Grey images in another order than their rows; the name of one is not UTF-8."""
    files = {2: ("c.png", encoded([[2, 2], [2, 2]])), 0: ("a\udcff.png", encoded(GREY)), 1: ("b.png", None)}
    pack((Encoded(place, name, data) for place, (name, data) in files.items()), 3, folder)
    return Packed(folder, None, (2, 2))


def test_a_pack_gives_rows_in_any_order(tmp_path: Path):
    assert packed(tmp_path).pixels(np.array([2, 0, 2])).tolist() == [[[[2, 2], [2, 2]]], [GREY], [[[2, 2], [2, 2]]]]


def test_an_error_is_one_line_that_names_the_image_also_from_another_process(tmp_path: Path):
    found = packed(tmp_path)
    for processes in (0, 1):
        loader = ImageLoader({"train": found}, processes=processes)
        with pytest.raises(DataError, match=r"^b\.png: no image bytes; allowed: [^\n]*$"):
            list(loader.read("train", [torch.tensor([0]), torch.tensor([0, 1])]))
        loader.close()
