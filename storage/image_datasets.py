"""Image data sets by name, as uint8 arrays with a digest of their content."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from autosparse.models.errors import DataError, unknown_name
from autosparse.storage.image_cache import cached
from autosparse.storage.image_halves import halves
from autosparse.storage.image_sources.digits import Digits
from autosparse.storage.image_sources.folder import ImageFolder
from autosparse.storage.image_sources.hub import PREFIX, HubImages, check_hub_name
from autosparse.storage.image_sources.parquet import ParquetImages
from autosparse.storage.image_sources.source import DataFields, ImageSource
from autosparse.storage.image_sources.torchvision_sets import TorchvisionSet

DATASETS: dict[str, Callable[[DataFields], ImageSource]] = {
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
    notes: tuple[str, ...] = ()  # what was left out, passed over or sampled, a sentence each

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.train_images.shape[1:]
        return int(channels), int(height), int(width)


def check_name(field: str, name: str) -> None:
    """Raise SpecError unless it is one of `DATASETS`, or hf:owner/name."""
    if name.startswith(PREFIX):
        check_hub_name(field, name)
    elif name not in DATASETS:
        raise unknown_name(field, name, [*DATASETS, f"{PREFIX}owner/name"])


def load_images(data: DataFields, cache: Path | None) -> ImageArrays:
    """Load what a `DataSpec` says, decoding at most once per `cache`.

    Raises SpecError for an unknown name, a path of the wrong kind or a field that does not suit, DataError naming the file that is
    missing or corrupt.
    """
    check_name("data.name", data.name)
    source = (HubImages if data.name.startswith(PREFIX) else DATASETS[data.name])(data)
    both = halves(source, data)
    found = [cached(half, cache) for half in both]
    channels = max(one.split.images.shape[1] for one in found)
    (train, train_digest), (test, test_digest) = (
        one if one.split.images.shape[1] == channels else cached(half, cache, colour=True) for half, one in zip(both, found, strict=True)
    )
    if train.images.shape[1:] != test.images.shape[1:]:
        shapes = f"{list(train.images.shape[1:])} and {list(test.images.shape[1:])}"
        place = f"{data.name} of {data.path}" if data.path else data.name
        raise DataError(
            f"{place}: train and test images have shapes {shapes}; allowed: the same (channels, height, width), "
            "or data.size, to which all are brought"
        )
    digest = hashlib.sha256(f"{train_digest} {test_digest} {len(train.classes)}".encode()).hexdigest()[:32]
    lying = (note for half in both for note in half.rows.notes)  # asked each time: what is left out is not in the cache's keys
    notes = tuple(dict.fromkeys((*lying, *train.notes, *test.notes)))
    return ImageArrays(train.images, train.labels, test.images, test.labels, train.classes, digest, notes)
