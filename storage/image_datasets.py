"""Image data sets by name, as uint8 arrays with a digest of their content."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from autosparse.models.errors import DataError, unknown_name
from autosparse.storage.image_cache import cached
from autosparse.storage.image_halves import Half, halves
from autosparse.storage.image_sources.digits import Digits
from autosparse.storage.image_sources.folder import ImageFolder
from autosparse.storage.image_sources.hub import PREFIX, HubImages, check_hub_name
from autosparse.storage.image_sources.parquet import ParquetImages
from autosparse.storage.image_sources.source import DataFields, EncodedRows, ImageSource
from autosparse.storage.image_sources.torchvision_sets import TorchvisionSet
from autosparse.storage.streamed_images import StreamedImages, Tell, streamed, whole_digest

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
TRIED = 8  # images that are decoded to find out how large one is


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
    return _loaded(_opened(data), data, cache)


def open_images(
    data: DataFields, cache: Path | None, *, budget: int, processes: int, tell: Tell = lambda message: None
) -> ImageArrays | StreamedImages:
    """The same, but packed and not decoded where the decoded images are more than `budget` bytes.

    What has to be looked through first is, by so many processes; `tell` hears of it.
    """
    both = _opened(data)
    if not all(isinstance(half.rows, EncodedRows) for half in both):
        return _loaded(both, data, cache)
    first = _first_image(both[0])
    if first and sum(len(half.chosen[0]) for half in both) * math.prod(first) <= budget:
        return _loaded(both, data, cache)
    return streamed(both, first[1:] if first else None, cache, processes, tell)


def has_test(data: DataFields) -> bool:
    """Whether the data set as it lies has a test split with labels. Raises DataError."""
    return _source(data).rows("test") is not None


def _opened(data: DataFields) -> tuple[Half, Half]:
    check_name("data.name", data.name)
    return halves(_source(data), data)


def _source(data: DataFields) -> ImageSource:
    return (HubImages if data.name.startswith(PREFIX) else DATASETS[data.name])(data)


def _first_image(half: Half) -> tuple[int, int, int] | None:
    """(channels, height, width) of the first image; None where none of the first few can be decoded, of which decoding will tell."""
    for row in half.chosen[0][:TRIED]:
        with suppress(DataError):
            channels, height, width = half.rows.images(np.array([row]), half.size, colour=False).shape[1:]
            return channels, height, width
    return None


def _loaded(both: tuple[Half, Half], data: DataFields, cache: Path | None) -> ImageArrays:
    found = [cached(half, cache) for half in both]
    channels = max(one.split.images.shape[1] for one in found)
    (train, train_digest), (test, test_digest) = (
        one if one.split.images.shape[1] == channels else cached(half, cache, colour=True) for half, one in zip(both, found, strict=True)
    )
    if train.images.shape[1:] != test.images.shape[1:]:
        raise _other_shapes(data, train.images.shape[1:], test.images.shape[1:])
    digest = whole_digest(train_digest, test_digest, len(train.classes))
    lying = (note for half in both for note in half.rows.notes)  # asked each time: what is left out is not in the cache's keys
    notes = tuple(dict.fromkeys((*lying, *train.notes, *test.notes)))
    return ImageArrays(train.images, train.labels, test.images, test.labels, train.classes, digest, notes)


def _other_shapes(data: DataFields, train: Sequence[int], test: Sequence[int]) -> DataError:
    place = f"{data.name} of {data.path}" if data.path else data.name
    return DataError(
        f"{place}: train and test images have shapes {list(train)} and {list(test)}; allowed: the same (channels, height, width), "
        "or data.size, to which all are brought"
    )
