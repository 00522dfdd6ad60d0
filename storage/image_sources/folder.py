"""Image files in one folder per class: `path/train/<class>/**/*.png` and `path/test/<class>/...`, or `path/<class>/...` alone."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np

from autosparse.models.errors import DataError
from autosparse.storage.image_sources.decoding import Encoded, decode, endings
from autosparse.storage.image_sources.source import SPLIT_NAMES, DataFields, local_folder, without_columns


class ImageFolder:
    """Classes = the folders below `train`, sorted; folders below a class belong to it.

    Where no folder is named as a split is, the classes lie directly in the path and all of it is the training split.
    """

    def __init__(self, data: DataFields) -> None:
        self.path = local_folder(data.path)
        without_columns(data)

    def rows(self, split: str) -> "FolderRows | None":
        """Raises DataError for a class without an image, and for a test class that is not in train."""
        found = {half: self._folder(half) for half in SPLIT_NAMES}
        if not any(found.values()) and _classes(self.path):
            found["train"] = self.path
        train, folder = found["train"], found[split]
        if train is None:
            raise DataError(f"data.path: {self.path} has no folder train; allowed: train/<class>/*.png, or <class>/*.png")
        return None if folder is None else FolderRows(folder, train)

    def _folder(self, split: str) -> Path | None:
        return next((self.path / name for name in SPLIT_NAMES[split] if (self.path / name).is_dir()), None)


class FolderRows:
    """The images of one split, one of each class in turn, so that any prefix is balanced."""

    def __init__(self, folder: Path, train: Path) -> None:
        self.folder, self.classes = folder, _classes(train)
        strangers = set(_classes(folder)) - set(self.classes)
        if strangers:
            raise DataError(f"{folder / min(strangers)}: not a class of {train}; allowed: {', '.join(self.classes)}")
        columns, others = [], Counter(map(_ending, _files(folder, deep=False)))
        for label, name in enumerate(self.classes):
            files = _files(folder / name)
            images = [(file, label) for file in files if _ending(file) in endings()]
            others.update(ending for ending in map(_ending, files) if ending not in endings())
            if not images and (folder / name).is_dir():
                raise DataError(
                    f"{folder / name}: a class without an image; allowed: files that Pillow reads by their ending, or no such folder"
                )
            columns.append(images)
        self._rows = [row for row in chain.from_iterable(zip_longest(*columns)) if row is not None]
        if not self._rows:
            raise DataError(f"{folder}: no images below it; allowed: <class>/*.png, or another ending that Pillow reads")
        counted = ", ".join(f"{count:,} {ending}" for ending, count in sorted(others.items()))
        self.notes: tuple[str, ...] = (f"{folder}: {others.total():,} files are no images and left out ({counted})",) if others else ()

    @property
    def key(self) -> str:
        """sha256 over class names, relative file names and contents."""
        return self._key

    @cached_property
    def _key(self) -> str:
        digest = hashlib.sha256(repr(self.classes).encode())
        for file, _ in self._rows:
            digest.update(f"{file.relative_to(self.folder)} {hashlib.sha256(_read(file)).hexdigest()}\n".encode())
        return f"image_folder {digest.hexdigest()}"

    @property
    def labels(self) -> np.ndarray:
        return np.array([label for _, label in self._rows], np.int64)

    def where(self, row: int) -> str:
        return str(self._rows[row][0])

    def images(self, rows: np.ndarray, size: int | None, *, colour: bool) -> np.ndarray:
        return decode(self.fetch(rows), len(rows), size, colour=colour)

    def fetch(self, rows: np.ndarray) -> Iterator[Encoded]:
        """The files of these rows, one after another."""
        for place, row in enumerate(rows):
            file = self._rows[row][0]
            yield Encoded(place, str(file), _read(file))


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error


def _classes(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        return ()
    return tuple(sorted(item.name for item in folder.iterdir() if item.is_dir() and not item.name.startswith(".")))


def _ending(file: Path) -> str:
    return file.suffix.lower() or "without an ending"


def _files(folder: Path, *, deep: bool = True) -> list[Path]:
    """All files in a folder, and below it, sorted; hidden ones left out. Links are followed, but not in circles."""
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(place))
        folders[:] = [name for name in folders if deep and not name.startswith(".") and os.path.realpath(Path(place, name)) not in seen]
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(found)
