"""A store in a local folder."""

import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import pyarrow as pa
from pyarrow import fs

from autosparse.models.errors import AutosparseError, ConflictError
from autosparse.storage.disk import disk_error, sync_folder
from autosparse.storage.leftovers import Leftover, staged_files
from autosparse.storage.store import Entry, Store, check_key


@dataclass(frozen=True)
class LocalStore(Store):
    """A local folder. Files are written beside their place, synced to disk and moved there."""

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def read(self, key: str) -> bytes:
        with self.reporting("read", key):
            return self._path(key).read_bytes()

    def write(self, key: str, data: bytes) -> None:
        self._put(key, lambda file: file.write(data), len(data))

    def create(self, key: str, data: bytes) -> None:
        self._put(key, lambda file: file.write(data), len(data), place=self._link)

    def upload(self, local: Path, key: str) -> None:
        try:
            with local.open("rb") as source:
                self._put(key, partial(shutil.copyfileobj, source), local.stat().st_size)
        except OSError as error:
            raise disk_error(local, error) from error

    def delete(self, prefix: str) -> None:
        path = self._path(prefix)
        with self.reporting("delete", prefix):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def open(self, key: str) -> pa.OSFile:
        with self.reporting("read", key):
            return pa.OSFile(str(self._path(key)), "rb")

    def local_path(self, key: str) -> Path:
        return self._path(key)

    def arrow(self) -> tuple[fs.FileSystem, str]:
        return fs.LocalFileSystem(), self.root

    def entries(self, prefix: str = "") -> list[Entry]:
        found = []
        with self.reporting("listing", prefix):
            for folder, _, names in os.walk(self._path(prefix) if prefix else self.root, onerror=_unless_gone):
                for path in (Path(folder, name) for name in names):
                    with suppress(FileNotFoundError):  # gone since it was listed
                        if stat.S_ISREG((state := path.stat()).st_mode):
                            found.append(Entry(path.relative_to(self.root).as_posix(), state.st_size, state.st_mtime))
        return found

    def leftovers(self) -> list[Leftover]:
        with self.reporting("listing", ""):
            return staged_files(Path(self.root))

    def discard(self, leftover: Leftover) -> None:
        with self.reporting("delete", leftover.key):
            Path(self.root, leftover.key).with_name(leftover.name).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return Path(self.root, check_key(key))

    def _put(self, key: str, fill: Callable[[BinaryIO], Any], size: int, place: Callable[[Path, Path], None] = os.replace) -> None:
        target = self._path(key)
        writing = target.with_name(f".{target.name}.{uuid4().hex}")
        with self.reporting("write", key, size):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with writing.open("xb") as file:
                    fill(file)
                    file.flush()
                    os.fsync(file.fileno())
                place(writing, target)
            finally:
                writing.unlink(missing_ok=True)
            sync_folder(target.parent)

    def _link(self, writing: Path, target: Path) -> None:
        try:
            os.link(writing, target)
        except FileExistsError:
            raise ConflictError(f"{target}: exists already") from None

    def _failure(self, operation: str, key: str, error: Exception, seconds: float, needed: int) -> AutosparseError:
        assert isinstance(error, OSError), "the only kind of failures that is caught"
        return disk_error(self.uri(key) if key else self.root, error, needed)


def _unless_gone(error: OSError) -> None:
    """For `os.walk`, which passes over every folder that cannot be listed: only those that are gone since may be."""
    if not isinstance(error, FileNotFoundError):
        raise error
