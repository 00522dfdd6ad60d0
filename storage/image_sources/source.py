"""What every image source offers: the rows of a split, whose labels are known before any image is decoded."""

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from autosparse.models.errors import not_allowed
from autosparse.storage.addresses import LOCAL, address_kind
from autosparse.storage.image_sources.decoding import Encoded, resized

SPLIT_NAMES = {"train": ("train", "training"), "test": ("test", "validation", "valid", "val", "dev", "eval")}  # the first that is there
NO_LABEL = np.iinfo(np.int64).min  # of a row that has none


class DataFields(Protocol):
    """Which data set, and what of it: the fields of a `DataSpec` that decide which pixels and labels there are."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str | None: ...
    @property
    def download(self) -> bool: ...
    @property
    def train_limit(self) -> int | None: ...
    @property
    def test_limit(self) -> int | None: ...
    @property
    def label(self) -> str | None: ...
    @property
    def image(self) -> str | None: ...
    @property
    def size(self) -> int | None: ...
    @property
    def test_share(self) -> float: ...
    @property
    def test_seed(self) -> int: ...


class Split(NamedTuple):
    """One half of a data set: images uint8 (N, C, H, W), labels int64 (N,) that index `classes`, how rows were chosen."""

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


class Rows(Protocol):
    """One split as it lies. Everything raises DataError, which names the file (and row) that cannot be used."""

    @property
    def key(self) -> str:
        """A text that changes whenever labels, classes or images of these rows change."""
        ...

    @property
    def labels(self) -> np.ndarray:
        """int64 (N,), of all rows; NO_LABEL where there is none."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, those of the training split for every split."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out or passed over, a sentence each."""
        ...

    def where(self, row: int) -> str:
        """The name of a row in messages."""
        ...

    def images(self, rows: np.ndarray, size: int | None, *, colour: bool) -> np.ndarray:
        """Decode these rows alone, in this order: uint8 (N, C, H, W), brought to `size` x `size`; C = 3 if one is in colour or `colour`."""
        ...


@runtime_checkable
class EncodedRows(Protocol):
    """Rows that are image files, and need not all be in memory."""

    def fetch(self, rows: np.ndarray) -> Iterator[Encoded]:
        """The files of these rows in any order; each says its place in `rows`."""
        ...


class ImageSource(Protocol):
    """A data set at one place."""

    def rows(self, split: str) -> Rows | None:
        """Those of train or test; None where there is no test split with labels. Raises DataError."""
        ...


class ArrayRows:
    """Rows whose pixels come as one array, loaded when somebody asks for them."""

    notes: tuple[str, ...] = ()

    def __init__(self, key: str, load: Callable[[], Split]) -> None:
        self.key, self._load = key, load

    @cached_property
    def _split(self) -> Split:
        return self._load()

    @property
    def labels(self) -> np.ndarray:
        return self._split.labels

    @property
    def classes(self) -> tuple[str, ...]:
        return self._split.classes

    def where(self, row: int) -> str:
        return f"{self.key.split()[0]} row {row}"

    def images(self, rows: np.ndarray, size: int | None, *, colour: bool) -> np.ndarray:
        pixels = self._split.images[rows]
        if colour and pixels.shape[1] == 1:
            pixels = np.repeat(pixels, 3, axis=1)
        return pixels if size is None else resized(pixels, size)


def local_folder(path: str | None) -> Path:
    """`path` as a folder on this machine. Raises SpecError when it is none, DataError when it is not there."""
    address_kind("data.path", path, LOCAL)
    return Path(str(path)).expanduser()


def without_columns(data: DataFields) -> None:
    """Raise SpecError where a column is named of a data set that has none."""
    for field, value in (("data.label", data.label), ("data.image", data.image)):
        if value is not None:
            raise not_allowed(field, value, f"none for {data.name}, which has no columns")
