"""Image data sets by name, as uint8 arrays with a digest of their content."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from autosparse.models.errors import DataError, unknown_name
from autosparse.storage.image_cache import cached
from autosparse.storage.image_sources.digits import Digits
from autosparse.storage.image_sources.folder import ImageFolder
from autosparse.storage.image_sources.parquet import ParquetImages
from autosparse.storage.image_sources.source import ImageSource, Split
from autosparse.storage.image_sources.torchvision_sets import TorchvisionSet

DATASETS: dict[str, Callable[[str | None, bool], ImageSource]] = {  # (data.path, data.download) -> source
    "digits": Digits,
    "parquet": ParquetImages,
    "image_folder": ImageFolder,
    "cifar10": partial(TorchvisionSet, "cifar10"),
    "cifar100": partial(TorchvisionSet, "cifar100"),
    "mnist": partial(TorchvisionSet, "mnist"),
    "fashion_mnist": partial(TorchvisionSet, "fashion_mnist"),
}
SIZES: dict[str, tuple[tuple[int, int, int], int]] = {  # (channels, height, width) and classes of those that are the same everywhere
    "digits": ((1, 8, 8), 10),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "mnist": ((1, 28, 28), 10),
    "fashion_mnist": ((1, 28, 28), 10),
}


@dataclass(frozen=True)
class ImageArrays:
    """Images uint8 (N, C, H, W), labels int64 (N,) that index `classes`; possibly read-only memory maps.

    `digest`: 32 hex digits over decoded images, labels and the number of classes, so that the same content has the same digest
    wherever and in whichever format it lies.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]
    digest: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.train_images.shape[1:]
        return int(channels), int(height), int(width)


def load_images(
    *, name: str, path: str | None, download: bool, train_limit: int | None, test_limit: int | None, cache: Path | None
) -> ImageArrays:
    """Load a data set of `DATASETS`, decoding at most once per `cache`; limits take the first rows.

    Raises SpecError for an unknown name or a path of the wrong kind, DataError naming the file that is missing or corrupt.
    """
    if name not in DATASETS:
        raise unknown_name("data.name", name, DATASETS)
    source = DATASETS[name](path, download)
    train, train_digest = cached(source, "train", train_limit, cache)
    test, test_digest = cached(source, "test", test_limit, cache)
    place = f"{name} of {path}" if path else name
    if train.images.shape[1:] != test.images.shape[1:]:
        shapes = f"{list(train.images.shape[1:])} and {list(test.images.shape[1:])}"
        raise DataError(f"{place}: train and test images have shapes {shapes}; allowed: the same (channels, height, width)")
    for half, split in (("train", train), ("test", test)):
        _check_labels(f"{place} {half}", split, len(train.classes))
    digest = hashlib.sha256(f"{train_digest} {test_digest} {len(train.classes)}".encode()).hexdigest()[:32]
    return ImageArrays(train.images, train.labels, test.images, test.labels, train.classes, digest)


def _check_labels(place: str, split: Split, classes: int) -> None:
    strangers = np.flatnonzero((split.labels < 0) | (split.labels >= classes))
    if len(strangers):
        row = int(strangers[0])
        raise DataError(f"{place} row {row}: label {split.labels[row]} is not allowed; allowed: 0 to {classes - 1}")
