"""The 1,797 handwritten digits that scikit-learn bundles: 8x8 grey, nothing to download."""

from importlib.metadata import version
from typing import Any

import numpy as np

from autosparse.models.errors import not_allowed
from autosparse.storage.image_sources.source import ArrayRows, DataFields, Split, without_columns

TRAIN_ROWS = 1437  # four fifths; the order of the file is kept, so that no seed hides in the split


class Digits:
    """Train = the first 1,437 images, test = the last 360; both have 33 to 37 or 141 to 146 images of each class."""

    def __init__(self, data: DataFields) -> None:
        if data.path is not None:
            raise not_allowed("data.path", data.path, "none for digits, which come with scikit-learn")
        without_columns(data)

    def rows(self, split: str) -> ArrayRows:
        """The version of scikit-learn is the place of these images; values 0 to 16 become 0 to 255."""
        return ArrayRows(f"digits of scikit-learn {version('scikit-learn')}", lambda: _read(split))


def _read(split: str) -> Split:
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    rows = slice(TRAIN_ROWS) if split == "train" else slice(TRAIN_ROWS, None)
    pixels = np.rint(digits.images[rows] * (255 / 16)).astype(np.uint8)
    return Split(pixels[:, None], digits.target[rows].astype(np.int64), tuple(map(str, digits.target_names)))
