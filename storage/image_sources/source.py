"""What every image source offers, and the decoding of image files that they share."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from autosparse.models.errors import DataError
from autosparse.storage.addresses import LOCAL, address_kind

FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
GREY, COLOUR = ("1", "L", "LA"), ("RGB", "RGBA", "P", "CMYK", "YCbCr")
SPLIT_NAMES = {"train": ("train",), "test": ("test", "validation", "val")}  # the first that is there


class Split(NamedTuple):
    """One half of a data set: images uint8 (N, C, H, W), labels int64 (N,) that index `classes`."""

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


class ImageSource(Protocol):
    """A data set at one place; `split` is train or test."""

    def key(self, split: str) -> str:
        """A text that changes whenever what `read` would return for this split changes. Raises DataError."""
        ...

    def read(self, split: str, limit: int | None) -> Split:
        """Read and decode the first `limit` rows, or all. Raises DataError naming the file (and row) that cannot be used."""
        ...


def local_folder(path: str | None) -> Path:
    """`path` as a folder on this machine. Raises SpecError when it is none, DataError when it is not there."""
    address_kind("data.path", path, LOCAL)
    return Path(str(path)).expanduser()


def decode(files: Iterable[tuple[str, bytes | None]], count: int) -> np.ndarray:
    """Decode `count` image files, each with a name for messages, to uint8 (count, C, H, W): C = 1 if the first is grey, else 3.

    Raises DataError for an unreadable image and for one whose size differs from the first. One thread: Pillow holds the
    interpreter lock for most of a small image, and two threads are slower than one.
    """
    pixels: np.ndarray | None = None
    for row, (name, data) in enumerate(files):
        image = _decode_one(name, data, grey=None if pixels is None else pixels.shape[1] == 1)
        if pixels is None:
            pixels = _room(name, (count, *image.shape))
        if image.shape != pixels.shape[1:]:
            raise DataError(f"{name}: {_size(image)}, but the first image is {_size(pixels[0])}; allowed: one size for all images")
        pixels[row] = image
    assert pixels is not None, "a source refuses an empty split"
    return pixels


def _room(name: str, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return np.empty(shape, np.uint8)
    except (MemoryError, ValueError):  # a size that only its header claims, or more images than the machine can hold
        raise DataError(f"{name}: {shape[0]:,} images of {shape[3]} x {shape[2]} do not fit into memory") from None


def _decode_one(name: str, data: bytes | None, *, grey: bool | None) -> np.ndarray:
    """uint8 (C, H, W) with one channel if `grey`, three if not; None leaves it to the image."""
    if not data:
        raise DataError(f"{name}: no image bytes")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            mode = image.mode
            wanted = "L" if (mode in GREY if grey is None else grey) else "RGB"
            array = np.asarray(image if mode == wanted else image.convert(wanted))
    except Exception as error:  # Pillow raises a dozen kinds on broken bytes
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
        raise DataError(f"{name}: not a readable image ({reason}); allowed: {', '.join(FORMATS)}") from error
    if mode not in (*GREY, *COLOUR) or (wanted == "L" and mode not in GREY):
        raise DataError(f"{name}: pixel mode {mode}; allowed: 8 bits per channel, all grey or the first one in colour")
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[2]} x {image.shape[1]}"
