"""The encoded images of a half of a data set in one file, to be decoded as they are needed, in any order.

    <cache>/<key>/train-all-packed/images.bin, index.npy

A record is the name of an image and its bytes; the index has, for each row, where the record begins, where its bytes begin and where it
ends. Sources are bad at single rows: a Parquet file gives whole row groups, an object of S3 comes as a whole.
"""

import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from autosparse.models.errors import DataError
from autosparse.storage.image_sources.decoding import Encoded, decode

IMAGES, INDEX = "images.bin", "index.npy"


def pack(files: Iterator[Encoded], count: int, folder: Path) -> None:
    """Write `count` image files, which may come in any order, to a folder that is there."""
    index, end = np.zeros((count, 3), np.int64), 0
    with (folder / IMAGES).open("wb") as packed:
        for place, name, data in files:
            label, data = os.fsencode(name), data or b""
            packed.write(label + data)
            index[place] = end, end + len(label), end + len(label) + len(data)
            end = index[place, 2]
        packed.flush()
        os.fsync(packed.fileno())
    with (folder / INDEX).open("wb") as file:
        np.save(file, index, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


@dataclass(frozen=True)
class Packed:
    """A pack and how its images are decoded: brought to `size`, or all (height, width) as `like`; in 3 channels if `colour`.

    It crosses to another process as a few words; each opens the file for itself.
    """

    folder: Path
    size: int | None
    like: tuple[int, int] | None
    colour: bool = False

    def check(self) -> None:
        """Raise DataError where the pack was deleted or is not whole."""
        try:
            index = self._index
            whole = index.ndim == 2 and index.shape[1] == 3 and os.stat(self.folder / IMAGES).st_size == index[:, 2].max(initial=0)
        except (OSError, ValueError, EOFError, AttributeError):
            whole = False
        if not whole:
            raise DataError(f"{self.folder}: packed images are gone or cut short; allowed: to delete the folder and start again")

    @cached_property
    def _index(self) -> np.ndarray:
        return np.load(self.folder / INDEX, allow_pickle=False)

    @cached_property
    def _file(self) -> int:
        file = os.open(self.folder / IMAGES, os.O_RDONLY)
        weakref.finalize(self, os.close, file)
        return file

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """Decode these rows: uint8 (n, C, H, W). Raises DataError naming the images that cannot be."""
        if "_file" not in self.__dict__:
            self.check()
        return decode(self._encoded(rows), len(rows), self.size, colour=self.colour, like=self.like)

    def _encoded(self, rows: np.ndarray) -> Iterator[Encoded]:
        for place, (begin, middle, end) in enumerate(self._index[rows].tolist()):
            record = os.pread(self._file, end - begin, begin)
            yield Encoded(place, os.fsdecode(record[: middle - begin]), record[middle - begin :])

    def __getstate__(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in ("folder", "size", "like", "colour")}
