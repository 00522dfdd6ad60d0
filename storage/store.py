"""Bytes under keys: one root, a local folder or s3://bucket/prefix, and relative keys below it.

Whatever is there is whole: a write is seen after its last byte or not at all. Keys are made in `storage.paths`.
"""

import builtins
import json
import os
import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, ClassVar
from uuid import uuid4

import pyarrow as pa
from pyarrow import fs

from models.errors import AutosparseError, ConflictError, DataError, not_allowed
from storage.addresses import LOCAL, S3, address_kind
from storage.disk import disk_error, sync_folder
from storage.leftovers import Leftover, last_change, staged_files
from storage.plain_json import load_json

SEGMENT = "[A-Za-z0-9_=-][A-Za-z0-9._=-]*"  # never starts with a dot: no way up, and room for names of our own
KEY = re.compile(f"{SEGMENT}(/{SEGMENT})*")


def open_store(root: str) -> "Store":
    """The store at `root`: a local folder, made on the first write, or s3://bucket/prefix. Raises SpecError for anything else."""
    if address_kind("storage", root, LOCAL, S3) == S3:
        from storage.s3_store import S3Store  # s3fs takes half a second to import

        return S3Store(root.rstrip("/"))
    return LocalStore(str(Path(root).expanduser().absolute()))


def check_key(key: str) -> str:
    """The key itself, or SpecError: segments of `[A-Za-z0-9._=-]` that do not start with a dot, joined by single slashes."""
    if not isinstance(key, str) or not KEY.fullmatch(key):
        raise not_allowed("key", key, "segments of [A-Za-z0-9._=-] that do not start with a dot, joined by /")
    return key


def dump_json(value: Any) -> bytes:
    """`value` as JSON; equal values give equal bytes. Raises ValueError for NaN and infinities, which are no JSON."""
    return json.dumps(value, sort_keys=True, allow_nan=False, indent=1).encode() + b"\n"


@dataclass(frozen=True)
class Store(ABC):
    """Bytes under keys below `root`. It travels between processes as its root alone and is opened anew there.

    All methods raise SpecError for a key that is none, DataError (missing key, access denied, disk full) and, after the retries
    of the S3 client, ServiceError.
    """

    root: str
    failures: ClassVar[tuple[type[Exception], ...]] = (OSError,)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_store, (self.root,)

    def uri(self, key: str) -> str:
        """The address of a key for people and for `open_store`."""
        return f"{self.root}/{check_key(key)}"

    def read_json(self, key: str) -> Any:
        """What the JSON under `key` says. Raises DataError when it is not JSON."""
        try:
            return load_json(self.read(key))
        except ValueError as error:
            raise DataError(f"{self.uri(key)}: not JSON ({error})") from error

    def write_json(self, key: str, value: Any) -> None:
        """Write `value` as JSON with sorted keys. Raises DataError for NaN and infinities."""
        try:
            data = dump_json(value)
        except ValueError as error:
            raise DataError(f"{self.uri(key)}: {error}; allowed: finite numbers") from error
        self.write(key, data)

    def fetch(self, key: str, into: Path) -> Path:
        """Copy the bytes under `key` to a file of the same name in the local folder `into`, whole or not at all."""
        target = into / check_key(key).rsplit("/", 1)[-1]
        fetching = target.with_name(f".{target.name}.{uuid4().hex}")
        into.mkdir(parents=True, exist_ok=True)
        try:
            with self.reporting("fetch", key):
                self._download(key, fetching)
            return fetching.replace(target)
        finally:
            fetching.unlink(missing_ok=True)

    @contextmanager
    def reporting(self, operation: str, key: str, needed: int = 0) -> Iterator[None]:
        """Turn what goes wrong inside into our errors; `operation` and `key` say what was tried."""
        start = time.monotonic()
        try:
            yield
        except self.failures as error:
            raise self._failure(operation, key, error, time.monotonic() - start, needed) from error

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether there are bytes under `key`."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """All bytes under `key`."""

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Put `data` under `key`, in place of what is there."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> None:
        """Put `data` under `key`. Raises ConflictError when something is there already."""

    @abstractmethod
    def upload(self, local: Path, key: str) -> None:
        """Put the content of a local file under `key`, in bounded memory."""

    @abstractmethod
    def delete(self, prefix: str) -> None:
        """Remove the key `prefix` and all keys below it; nothing there is no error."""

    @abstractmethod
    def open(self, key: str) -> Any:
        """The bytes under `key` as a binary file to read and seek in; close it. Not buffered: ask for large pieces."""

    @abstractmethod
    def local_path(self, key: str) -> Path | None:
        """Where the bytes under `key` are on this machine, or None when they are elsewhere."""

    @abstractmethod
    def arrow(self) -> tuple[fs.FileSystem, str]:
        """The file system and the path of the root in it, for pyarrow and Ray Train."""

    @abstractmethod
    def _download(self, key: str, target: Path) -> None:
        """Copy the bytes under `key` into a new local file."""

    @abstractmethod
    def _failure(self, operation: str, key: str, error: Exception, seconds: float, needed: int) -> AutosparseError:
        """What one of `failures` means, after `seconds` of trying."""

    @abstractmethod
    def list(self, prefix: str = "") -> list[str]:
        """All keys below the folder `prefix`, sorted; asked for anew each time. Hidden files are left out."""

    @abstractmethod
    def changed(self, prefix: str) -> float:
        """When something below the folder `prefix` was last written, in seconds since 1970; 0 where there is nothing."""

    @abstractmethod
    def leftovers(self) -> "builtins.list[Leftover]":
        """Writes below the root that are under way or were never finished; readers see none of them."""

    @abstractmethod
    def discard(self, leftover: Leftover) -> None:
        """Remove one of them; a write that was under way fails."""


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

    def list(self, prefix: str = "") -> list[str]:
        folder = self._path(prefix) if prefix else Path(self.root)
        keys = (path.relative_to(self.root).as_posix() for path in folder.rglob("*") if path.is_file())
        return sorted(key for key in keys if not is_hidden(key))

    def changed(self, prefix: str) -> float:
        with self.reporting("listing", prefix):
            return last_change(self._path(prefix))

    def leftovers(self) -> "builtins.list[Leftover]":
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

    def _download(self, key: str, target: Path) -> None:
        shutil.copyfile(self._path(key), target)

    def _failure(self, operation: str, key: str, error: Exception, seconds: float, needed: int) -> AutosparseError:
        assert isinstance(error, OSError), "the only kind of failures that is caught"
        return disk_error(self.uri(key) if key else self.root, error, needed)


def is_hidden(key: str) -> bool:
    """Whether a file is none of ours: writes under way, markers of other programs."""
    return any(segment.startswith(".") for segment in key.split("/"))
