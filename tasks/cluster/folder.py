"""The folder of a local Ray: locked for as long as its run lives, so that the next run can tell what a killed one has left."""

import contextlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX, IN_USE, RAY = "autosparse-", "in-use", "ray"


@dataclass(frozen=True)
class RayFolder:
    """A new folder for one local Ray, below the system's folder for temporary files."""

    path: Path
    _lock: FileLock

    @classmethod
    def make(cls) -> "RayFolder":
        """Make it, locked until `remove` or until this process ends."""
        path = Path(tempfile.mkdtemp(prefix=PREFIX))  # short: socket paths have 107 bytes at most
        lock = FileLock(path / IN_USE)
        lock.acquire()
        return cls(path, lock)

    @property
    def session(self) -> Path:
        """Where Ray keeps sockets and logs."""
        return (self.path / RAY / "session_latest").resolve()

    def remove(self) -> None:
        """Delete it; best effort."""
        self._lock.release()
        shutil.rmtree(self.path, ignore_errors=True)


def remove_dead() -> int:
    """Delete the folders of runs that were killed, best effort; their number."""
    found = 0
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, Timeout):
            if (path / IN_USE).is_file():
                with FileLock(path / IN_USE).acquire(timeout=0):
                    shutil.rmtree(path / RAY, ignore_errors=True)
                    if not (path / RAY).exists():  # else somebody still writes there: the next run looks again
                        shutil.rmtree(path, ignore_errors=True)
                        found += 1
    return found
