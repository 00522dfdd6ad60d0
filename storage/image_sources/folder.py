"""Image files in one folder per class: `path/train/<class>/*.png` and `path/test/<class>/*.png`."""

import hashlib
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np

from autosparse.models.errors import DataError
from autosparse.storage.image_sources.source import SPLIT_NAMES, Split, decode, local_folder

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


class ImageFolder:
    """Classes = the folders below `train`, sorted. The rows take one image of each class in turn, so that any prefix is balanced."""

    def __init__(self, path: str | None, download: bool) -> None:
        self.path = local_folder(path)

    def key(self, split: str) -> str:
        """sha256 over class names, relative file names and contents."""
        digest = hashlib.sha256(repr(_classes(self._folder("train"))).encode())
        folder = self._folder(split)
        for file, _ in self._rows(split):
            digest.update(f"{file.relative_to(folder)} {hashlib.sha256(_read(file)).hexdigest()}\n".encode())
        return f"image_folder {digest.hexdigest()}"

    def read(self, split: str, limit: int | None) -> Split:
        """Decode the first `limit` files in the order of the rows."""
        rows = self._rows(split)[:limit]
        images = decode(((str(file), _read(file)) for file, _ in rows), len(rows))
        return Split(images, np.array([label for _, label in rows], np.int64), _classes(self._folder("train")))

    def _folder(self, split: str) -> Path:
        for name in SPLIT_NAMES[split]:
            if (self.path / name).is_dir():
                return self.path / name
        raise DataError(f"data.path: {self.path} has no folder {split}")

    def _rows(self, split: str) -> list[tuple[Path, int]]:
        folder, classes = self._folder(split), _classes(self._folder("train"))
        strangers = set(_classes(folder)) - set(classes)
        if strangers:
            raise DataError(f"{folder / min(strangers)}: not a class of {self._folder('train')}; allowed: {', '.join(classes)}")
        columns = [[(file, label) for file in _files(folder / name)] for label, name in enumerate(classes)]
        rows = [row for row in chain.from_iterable(zip_longest(*columns)) if row is not None]
        if not rows:
            raise DataError(f"{folder}: no images below it; allowed: <class>/*{', *'.join(sorted(SUFFIXES))}")
        return rows


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error


def _classes(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(item.name for item in folder.iterdir() if item.is_dir() and not item.name.startswith(".")))


def _files(folder: Path) -> list[Path]:
    return sorted(item for item in folder.iterdir() if item.suffix.lower() in SUFFIXES) if folder.is_dir() else []
