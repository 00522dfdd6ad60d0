"""Decoded images on disk, so that a data set is decoded once per machine: uncompressed .npy files that are memory-mapped.

    <cache>/<key>/train-20000/images.npy, labels.npy, split.json

An entry is staged beside its place and renamed, under a lock, so that of several workers one decodes and none sees half an
entry. An entry that cannot be read is made again; deleting any of it is always safe.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from filelock import FileLock

from autosparse.storage.disk import DISK_FULL
from autosparse.storage.image_halves import Half
from autosparse.storage.image_sources.source import Split

LAYOUT = 2  # of the entries and of what decoding means; raise it to leave old entries behind
IMAGES, LABELS, FACTS = "images.npy", "labels.npy", "split.json"


class Decoded(NamedTuple):
    """A split and the sha256 of its decoded content."""

    split: Split
    digest: str


def cached(half: Half, cache: Path | None, *, colour: bool = False) -> Decoded:
    """The half from the cache, decoded and put there when it is not in it. `cache` None means always decode. `colour` asks for 3 channels.

    Arrays that come from the cache are read-only memory maps. Raises DataError when the source cannot be used.
    """
    if cache is None:
        return _decode(half, colour)
    key = hashlib.sha256(f"{LAYOUT} Pillow {PIL.__version__} {half.key}".encode()).hexdigest()[:32]
    entry = cache / key / f"{half.entry}{'-colour' if colour else ''}"
    if (found := _load(entry)) is not None:
        return found
    entry.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(entry.with_suffix(".lock")):
        if (found := _load(entry)) is not None:
            return found
        made = _decode(half, colour)
        try:
            _publish(entry, made)
        except OSError as error:
            shutil.rmtree(entry.with_suffix(".partial"), ignore_errors=True)
            if error.errno not in DISK_FULL:  # then every process decodes for itself
                raise
        return _load(entry) or made


def _decode(half: Half, colour: bool) -> Decoded:
    read = half.read(colour=colour)
    digest = hashlib.sha256(f"{read.images.shape}".encode())
    digest.update(np.ascontiguousarray(read.images).data)
    digest.update(np.ascontiguousarray(read.labels, dtype="<i8").data)
    return Decoded(read, digest.hexdigest())


def _load(entry: Path) -> Decoded | None:
    try:
        facts = json.loads((entry / FACTS).read_text())
        images, labels = (np.load(entry / name, mmap_mode="r", allow_pickle=False) for name in (IMAGES, LABELS))
        if (images.dtype, images.ndim, labels.dtype, labels.shape) != (np.uint8, 4, np.int64, images.shape[:1]):
            return None
        return Decoded(Split(images, labels, tuple(facts["classes"]), tuple(facts["notes"])), facts["digest"])
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError):  # an archive of arrays has no shape
        return None


def _publish(entry: Path, made: Decoded) -> None:
    staging = entry.with_suffix(".partial")
    for left_over in (staging, entry):  # of a killed process, or unreadable
        shutil.rmtree(left_over, ignore_errors=True)
    staging.mkdir()
    for name, array in ((IMAGES, made.split.images), (LABELS, made.split.labels)):
        with (staging / name).open("wb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
    facts = {"classes": list(made.split.classes), "notes": list(made.split.notes), "digest": made.digest}
    (staging / FACTS).write_text(json.dumps(facts))
    staging.rename(entry)
