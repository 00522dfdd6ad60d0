"""Bytes under keys: one root, a local folder or s3://bucket/prefix, and relative keys below it.

Whatever is there is whole: a write is seen after its last byte or not at all. Keys are made in `autosparse.storage.paths`.
"""

import builtins
import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pyarrow import fs

from autosparse.models.errors import AutosparseError, DataError, not_allowed
from autosparse.storage.damage import damaged
from autosparse.storage.leftovers import Leftover
from autosparse.storage.plain_json import load_json

SEGMENT = "[A-Za-z0-9_=-][A-Za-z0-9._=-]*"  # never starts with a dot: no way up, and room for names of our own
KEY = re.compile(f"{SEGMENT}(/{SEGMENT})*")


def check_key(key: str) -> str:
    """The key itself, or SpecError: segments of `[A-Za-z0-9._=-]` that do not start with a dot, joined by single slashes."""
    if not isinstance(key, str) or not KEY.fullmatch(key):
        raise not_allowed("key", key, "segments of [A-Za-z0-9._=-] that do not start with a dot, joined by /")
    return key


def dump_json(value: Any) -> bytes:
    """`value` as JSON; equal values give equal bytes. Raises ValueError for NaN and infinities, which are no JSON."""
    return json.dumps(value, sort_keys=True, allow_nan=False, indent=1).encode() + b"\n"


@dataclass(frozen=True)
class Entry:
    """One file in a store: its key, its bytes, and when it was written, in seconds since 1970."""

    key: str
    size: int
    changed: float


@dataclass(frozen=True)
class Store(ABC):
    """Bytes under keys below `root`. It travels between processes as its root alone and is opened anew there.

    All methods raise SpecError for a key that is none, DataError (missing key, access denied, disk full) and, after the retries
    of the S3 client, ServiceError.
    """

    root: str
    failures: ClassVar[tuple[type[Exception], ...]] = (OSError,)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.root,)

    def uri(self, key: str) -> str:
        """The address of a key for people and for `open_store`."""
        return f"{self.root}/{check_key(key)}"

    def read_json(self, key: str) -> Any:
        """What the JSON under `key` says. Raises DataError when it is not JSON."""
        try:
            return load_json(self.read(key))
        except ValueError as error:
            raise damaged(self.uri(key), f"not JSON ({error})") from error

    def write_json(self, key: str, value: Any) -> None:
        """Write `value` as JSON with sorted keys. Raises DataError for NaN and infinities."""
        try:
            data = dump_json(value)
        except ValueError as error:
            raise DataError(f"{self.uri(key)}: {error}; allowed: finite numbers") from error
        self.write(key, data)

    def list(self, prefix: str = "") -> list[str]:
        """All keys below the folder `prefix`, sorted; asked for anew each time. Hidden files are left out."""
        return sorted(entry.key for entry in self.entries(prefix) if not is_hidden(entry.key))

    def changed(self, prefix: str) -> float:
        """When something below the folder `prefix` was last written, in seconds since 1970; 0 where there is nothing."""
        return max((entry.changed for entry in self.entries(prefix)), default=0)

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
    def _failure(self, operation: str, key: str, error: Exception, seconds: float, needed: int) -> AutosparseError:
        """What one of `failures` means, after `seconds` of trying."""

    @abstractmethod
    def entries(self, prefix: str = "") -> "builtins.list[Entry]":
        """All files below the folder `prefix`, hidden ones too, in one listing and in no order."""

    @abstractmethod
    def leftovers(self) -> "builtins.list[Leftover]":
        """Writes below the root that are under way or were never finished; readers see none of them."""

    @abstractmethod
    def discard(self, leftover: Leftover) -> None:
        """Remove one of them; a write that was under way fails."""


def is_hidden(key: str) -> bool:
    """Whether a file is none of ours: writes under way, markers of other programs."""
    return any(segment.startswith(".") for segment in key.split("/"))
