"""The 1,797 handwritten digits that scikit-learn bundles: 8x8 grey, nothing to download."""

from importlib.metadata import version
from typing import Any

import numpy as np

from autosparse.models.errors import not_allowed
from autosparse.storage.image_sources.source import Split

TRAIN_ROWS = 1437  # four fifths; the order of the file is kept, so that no seed hides in the split


class Digits:
    """Train = the first 1,437 images, test = the last 360; both have 33 to 37 or 141 to 146 images of each class."""

    def __init__(self, path: str | None, download: bool) -> None:
        if path is not None:
            raise not_allowed("data.path", path, "none for digits, which come with scikit-learn")

    def key(self, split: str) -> str:
        """The version of scikit-learn, which is the place of these images."""
        return f"digits of scikit-learn {version('scikit-learn')}"

    def read(self, split: str, limit: int | None) -> Split:
        """Values 0 to 16 become 0 to 255."""
        from sklearn.datasets import load_digits

        digits: Any = load_digits()
        rows = slice(TRAIN_ROWS) if split == "train" else slice(TRAIN_ROWS, None)
        pixels = np.rint(digits.images[rows][:limit] * (255 / 16)).astype(np.uint8)
        return Split(pixels[:, None], digits.target[rows][:limit].astype(np.int64), tuple(map(str, digits.target_names)))
