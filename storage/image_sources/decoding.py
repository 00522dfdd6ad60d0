"""Image files to pixels, as the field's libraries show them.

Turned as the EXIF orientation says (PIL.ImageOps.exif_transpose), alpha and transparent palettes on white, palettes, CMYK and YCbCr in
RGB, 16 bits by their upper byte (as Pillow reads 16-bit colour, and OpenCV all). One picture in colour makes all of a split colour.
"""

import functools
import io
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from autosparse.models.errors import DataError

# of those that Pillow opens: started with another program, or known by name but not decoded
NEVER = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
USUAL = ("PNG", "JPEG", "BMP", "WEBP")
ALLOWED = "image files that Pillow reads, 8 bits per channel or 16 bits grey"
NAMED = 10  # images in one error
UNDECODED = "undecoded"  # in its details
GREY = ("1", "L", "LA", "La")
DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # 16 bits, grey
COLOUR = ("RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr", "HSV")
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Encoded(NamedTuple):
    """One image file: where it goes among those asked for, its name for messages, its bytes (None where there are none)."""

    place: int
    name: str
    data: bytes | None


@functools.cache
def formats() -> tuple[str, ...]:
    """What any bytes may be: formats that begin with a mark of their own. Pillow tries one after another, so the usual ones come first."""
    Image.init()
    marked = {name for name, (_, accept) in Image.OPEN.items() if accept is not None and name not in NEVER}
    return (*USUAL, *sorted(marked - {*USUAL}))


@functools.cache
def endings() -> dict[str, str]:
    """File ending -> format, of all that Pillow reads by itself: `.png`, `.tif`; also of formats that have no mark, such as TGA."""
    Image.init()
    read = {*Image.OPEN, "MPO"} - NEVER  # MPO is opened as JPEG
    return {ending: name for ending, name in Image.registered_extensions().items() if name in read}


def decode(files: Iterable[Encoded], count: int, size: int | None, *, colour: bool, like: tuple[int, int] | None = None) -> np.ndarray:
    """Decode `count` image files, which may come in any order, to uint8 (count, C, H, W): C = 3 if one is in colour or `colour`, else 1.

    With `size` each is resized so that its shorter side is `size`, and cropped to its middle. Raises DataError for images that cannot be
    decoded, all of them in one line and one by one in its details, and without a size for one that is not as large as the first, or as
    `like` (height, width) says that the first is. One thread: Pillow holds the interpreter lock for most of a small image, and two
    threads are slower than one.
    """
    pixels: np.ndarray | None = None
    bad: list[tuple[int, str]] = []
    for place, name, data in files:
        try:
            image = _decode_one(name, data, size)
        except DataError as error:
            bad.append((place, str(error)))
            continue
        if pixels is None:
            like = like or image.shape[1:]
            pixels, first = _room(name, (count, 3 if colour else len(image), *like)), name
        if image.shape[1:] != like:
            raise DataError(
                f"{name}: {_size(image)}, but the first image is {_size(pixels[0])}; "
                "allowed: one size for all images, or data.size, to which all are brought"
            )
        if len(image) > pixels.shape[1]:
            grey, pixels = pixels, _room(first, (count, 3, *pixels.shape[2:]))
            pixels[:] = grey
        pixels[place] = image
    if bad:
        raise undecoded([line for _, line in sorted(bad)], count)
    assert pixels is not None, "a source refuses an empty split"
    return pixels


def resized(pixels: np.ndarray, size: int) -> np.ndarray:
    """uint8 (N, C, H, W) to (N, C, size, size), as `decode` brings images to a size."""
    out = _room("images", (*pixels.shape[:2], size, size))
    for row, one in enumerate(pixels):
        out[row] = _channels(to_size(Image.fromarray(one[0] if len(one) == 1 else np.ascontiguousarray(one.transpose(1, 2, 0))), size))
    return out


def to_size(image: Image.Image, size: int) -> Image.Image:
    """The shorter side to `size`, then the middle, by torchvision's transforms v2 on the picture.

    On pictures they resize in Pillow's whole numbers with antialiasing, alike on every machine; on tensors they do not.
    """
    from autosparse.models.networks.torchvision_guard import import_torchvision

    import_torchvision()
    from torchvision.transforms.v2 import functional

    transforms: Any = functional  # typed for tensors alone
    return transforms.center_crop(transforms.resize(image, [size], antialias=True), [size])


def undecoded(lines: list[str], count: int) -> DataError:
    """The error of images that cannot be decoded, a line each, of `count`; its details hold all of them."""
    details = {UNDECODED: lines}
    if len(lines) == 1:
        return DataError(f"{lines[0]}; allowed: {ALLOWED}", details)
    more = f" and {len(lines) - NAMED:,} more" if len(lines) > NAMED else ""
    return DataError(f"{len(lines):,} of {count:,} images cannot be used: {', '.join(lines[:NAMED])}{more}; allowed: {ALLOWED}", details)


def _room(name: str, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return np.empty(shape, np.uint8)
    except (MemoryError, ValueError):  # a size that only its header claims, or more images than the machine can hold
        raise DataError(f"{name}: {shape[0]:,} images of {shape[3]} x {shape[2]} do not fit into memory") from None


def _decode_one(name: str, data: bytes | None, size: int | None) -> np.ndarray:
    """uint8 (C, H, W), one channel where the picture is grey."""
    if not data:
        raise DataError(f"{name}: no image bytes")
    own = endings().get(os.path.splitext(name)[1].lower())
    try:
        with Image.open(io.BytesIO(data), formats=formats() if own in (None, "MPO", *formats()) else (*formats(), own)) as image:
            shown = _shown(_upright(image))
        return _channels(shown if size is None else to_size(shown, size))
    except _Mode as error:
        raise DataError(f"{name}: pixel mode {error}") from None
    except Exception as error:  # Pillow raises a dozen kinds on broken bytes
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
        raise DataError(f"{name}: not a readable image ({reason})") from error


class _Mode(Exception):
    """A pixel mode that is none of a picture: floats, 32 bits, Lab."""


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # some formats know their orientation only then
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a broken tag turns nothing: the picture itself is whole
        return image
    return image if turn is None else image.transpose(turn)


def _shown(image: Image.Image) -> Image.Image:
    """In mode L or RGB."""
    if image.mode in DEEP:
        return _upper_byte(image)
    if image.mode not in (*GREY, *COLOUR):
        raise _Mode(image.mode)
    wanted = "L" if image.mode in GREY else "RGB"
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert(wanted)
    return image if image.mode == wanted else image.convert(wanted)


def _upper_byte(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "I" and not (values.min() >= 0 and values.max() <= 65535):
        raise _Mode(image.mode)
    return Image.fromarray((values >> 8).astype(np.uint8))


def _channels(image: Image.Image) -> np.ndarray:
    array: Any = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[2]} x {image.shape[1]}"
