"""Image data sets that do not fit into memory: packed as they are encoded, looked through once, then decoded as they are needed.

    <cache>/<key>/train-all-packed/images.bin, index.npy, facts.json, facts-colour.json

The pass that looks through them decodes every image: it finds those that cannot be decoded, and has the digest, which is that of the
same images in memory, and what mean and std are made of. Deleting any of it is safe while nothing runs.
"""

import hashlib
import json
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import torch
from filelock import FileLock

from autosparse.models.errors import DataError
from autosparse.storage.disk import DISK_FULL, disk_error
from autosparse.storage.image_cache import LAYOUT
from autosparse.storage.image_halves import Half
from autosparse.storage.image_loader import Decoded, Sums, image_loader
from autosparse.storage.image_pack import INDEX, Packed, pack
from autosparse.storage.image_sources.decoding import UNDECODED, undecoded
from autosparse.storage.image_sources.source import EncodedRows

Tell = Callable[[str], None]

LOOKED_AT = 100  # images of a batch of the pass
IN_THIS_PROCESS = 500  # images for which no process is started
TOLD_S = 10.0


@dataclass(frozen=True)
class StreamedImages:
    """As `ImageArrays`, with packs in the place of images: labels int64 (N,) that index `classes`, the digest of the decoded content."""

    train: Packed
    train_labels: np.ndarray
    test: Packed
    test_labels: np.ndarray
    classes: tuple[str, ...]
    digest: str
    image_shape: tuple[int, int, int]
    sums: tuple[Sums, ...]  # of the training images, per channel
    notes: tuple[str, ...] = ()

    @property
    def packs(self) -> dict[str, Packed]:
        """Both by the name of their split."""
        return {"train": self.train, "test": self.test}


class Facts(NamedTuple):
    """What the pass over a half found."""

    digest: str
    shape: tuple[int, int, int]
    sums: tuple[Sums, ...]


def streamed(both: tuple[Half, Half], like: tuple[int, int] | None, cache: Path | None, processes: int, tell: Tell) -> StreamedImages:
    """Pack and look through what is not in the cache; `like` is the (height, width) of the first image.

    Without a cache the packs are gone when nobody has what is returned. Raises DataError naming what cannot be used.
    """
    if cache:
        return _streamed(both, like, cache, processes, tell)
    folder = tempfile.mkdtemp(prefix="autosparse-images-")
    try:
        found = _streamed(both, like, Path(folder), processes, tell)
    except BaseException:
        shutil.rmtree(folder)
        raise
    weakref.finalize(found, shutil.rmtree, folder)
    return found


def _streamed(both: tuple[Half, Half], like: tuple[int, int] | None, cache: Path, processes: int, tell: Tell) -> StreamedImages:
    packs = [_packed(half, like, cache, tell) for half in both]
    found = [_facts(half, packed, processes, tell) for half, packed in zip(both, packs, strict=True)]
    if len({one.shape[0] for one in found}) > 1 or found[0].shape[0] == 3:
        packs = [replace(one, colour=True) for one in packs]
    if len({one.shape[0] for one in found}) > 1:
        found = [_facts(half, packed, processes, tell) for half, packed in zip(both, packs, strict=True)]
    train, test = both
    (train_rows, train_notes), (test_rows, test_notes) = train.chosen, test.chosen
    return StreamedImages(
        train=packs[0],
        train_labels=train.rows.labels[train_rows],
        test=packs[1],
        test_labels=test.rows.labels[test_rows],
        classes=train.rows.classes,
        digest=whole_digest(found[0].digest, found[1].digest, len(train.rows.classes)),
        image_shape=found[0].shape,
        sums=found[0].sums,
        notes=tuple(dict.fromkeys((*train.rows.notes, *test.rows.notes, *train_notes, *test_notes))),
    )


def whole_digest(train: str, test: str, classes: int) -> str:
    """32 hex digits of a data set whose halves have these digests."""
    return hashlib.sha256(f"{train} {test} {classes}".encode()).hexdigest()[:32]


def _packed(half: Half, like: tuple[int, int] | None, cache: Path, tell: Tell) -> Packed:
    key = hashlib.sha256(f"{LAYOUT} Pillow {PIL.__version__} {half.key}".encode()).hexdigest()[:32]
    entry = cache / key / f"{half.entry}-packed"
    found = Packed(entry, half.size, like)
    entry.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{entry}.lock"):
        if (entry / INDEX).exists():
            with suppress(DataError):
                found.check()
                return found
        rows, _ = half.chosen
        tell(f"{half.name}: packing {len(rows):,} images")
        staging = entry.with_name(f"{entry.name}.partial")
        for left_over in (staging, entry):  # of a killed process, or cut short
            shutil.rmtree(left_over, ignore_errors=True)
        staging.mkdir()
        try:
            assert isinstance(half.rows, EncodedRows), "others are held in memory"
            pack(half.rows.fetch(rows), len(rows), staging)
            staging.rename(entry)
        except OSError as error:
            raise disk_error(entry, error) if error.errno in DISK_FULL else error from None
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return found


def _facts(half: Half, packed: Packed, processes: int, tell: Tell) -> Facts:
    with FileLock(f"{packed.folder}.lock"):
        file = packed.folder / f"facts{'-colour' if packed.colour else ''}.json"
        with suppress(OSError, ValueError, KeyError, TypeError):
            plain = json.loads(file.read_text())
            return Facts(plain["digest"], tuple(plain["shape"]), tuple(Sums(*one) for one in plain["sums"]))
        rows, _ = half.chosen
        found = _looked_through(half.name, packed, half.rows.labels[rows], processes, tell)
        staging = file.with_suffix(".partial")
        staging.write_text(json.dumps(found._asdict()))
        staging.rename(file)
        return found


def _looked_through(name: str, packed: Packed, labels: np.ndarray, processes: int, tell: Tell) -> Facts:
    """One pass, or two where images turn out to be partly grey and partly in colour."""
    count, digest = len(labels), hashlib.sha256()
    shape: tuple[int, int, int] | None = None
    sums: tuple[Sums, ...] = ()
    bad: list[str] = []
    done, told = 0, time.monotonic()
    rows = torch.arange(count).split(LOOKED_AT)
    with image_loader({name: packed}, processes=processes if count > IN_THIS_PROCESS else 0, sums=True) as loader:
        for some, one in zip(rows, loader.decoded(name, rows), strict=True):
            if one.pixels is None:
                bad += _lines(one)
            elif shape is None:
                shape = (one.pixels.shape[1], one.pixels.shape[2], one.pixels.shape[3])
                digest.update(f"{(count, *shape)}".encode())
            elif one.pixels.shape[1] != shape[0]:
                return _looked_through(name, replace(packed, colour=True), labels, processes, tell)
            if one.pixels is not None and not bad:
                digest.update(one.pixels.numpy().data)
                sums = _added(sums, one.sums)
            done += len(some)
            if time.monotonic() - told > TOLD_S:
                told = time.monotonic()
                tell(f"{name}: looked at {done:,} of {count:,} images")
    if bad or shape is None:
        raise undecoded(bad, count)
    digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return Facts(digest.hexdigest(), shape, sums)


def _lines(one: Decoded) -> list[str]:
    """The images of a batch that cannot be decoded. Raises DataError for another error."""
    if UNDECODED not in one.details:
        raise DataError(str(one.error), one.details)
    return list(one.details[UNDECODED])


def _added(sums: tuple[Sums, ...], more: tuple[Sums, ...]) -> tuple[Sums, ...]:
    return tuple(Sums(*map(sum, zip(*both, strict=True))) for both in zip(sums, more, strict=True)) if sums else more
