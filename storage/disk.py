"""The local disk: what its errors mean, and how much room it has."""

import errno
import os
import shutil
from pathlib import Path

from autosparse.models.errors import DataError
from autosparse.storage.damage import made_again

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_error(path: str | Path, error: OSError, needed: int = 0) -> DataError:
    """What an error of the local disk means for `path`, in one line; `needed` are the bytes that were to be written."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: not found{made_again(str(path))}")
    reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
    if error.errno not in DISK_FULL:
        return DataError(f"{path}: {reason}")
    return DataError(f"{path}: {reason}; {f'{needed:,} bytes needed, ' if needed else ''}{free_bytes(path):,} free")


def free_bytes(path: str | Path) -> int:
    """Room on the disk of a path, which need not be there yet."""
    path = Path(path).absolute()
    return shutil.disk_usage(next(place for place in (path, *path.parents) if place.is_dir())).free


def sync_folder(folder: Path) -> None:
    """A new name is on disk only when its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
