"""The folder of a local Ray: locked for as long as its run lives, so that the next run can tell what a killed one has left.

It lies below the system's folder for temporary files, unless that has no room or too long a name for the sockets of a Ray.
"""

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from autosparse.models.errors import ServiceError
from autosparse.storage.disk import free_bytes

PREFIX, IN_USE, RAY = "autosparse-", "in-use", "ray"
SOCKET_BYTES = 107  # of a socket's path, at most
IN_THE_FOLDER = len(f"/{PREFIX}xxxxxxxx/{RAY}/session_2030-01-02_03-04-05_678901_4194304/sockets/plasma_store")
LONGEST = SOCKET_BYTES - IN_THE_FOLDER
LONGEST_OF_PYTHON = SOCKET_BYTES - len("/pymp-xxxxxxxx/listener-xxxxxxxx")  # of multiprocessing, which libraries use
ROOM = 64 * 2**20  # logs and sockets
OTHERS = ("/tmp", "/var/tmp", "/dev/shm")
TITLE = "ray::"  # begins the titles that Ray gives to its Python processes


@dataclass(frozen=True)
class RayFolder:
    """A new folder for one local Ray."""

    path: Path
    _lock: FileLock

    @classmethod
    def make(cls) -> "RayFolder":
        """Make it, locked until `remove` or until this process ends. Raises ServiceError where there is no place for it."""
        path = Path(new_folder())
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


@dataclass(frozen=True)
class Place:
    """A folder in which a Ray can have its own, and why not in those that came before it."""

    folder: str
    refused: dict[str, str]


def new_folder() -> str:
    """A new folder for a Ray, in the first place that will do. Raises ServiceError where there is none.

    A TMPDIR that is too long even for Python's own sockets is no longer that of the processes that this one starts.
    """
    folder = place().folder
    if len(os.fsencode(os.environ.get("TMPDIR", ""))) > LONGEST_OF_PYTHON:
        os.environ["TMPDIR"] = folder
    return tempfile.mkdtemp(prefix=PREFIX, dir=folder)


def place() -> Place:
    """Where new folders go: TMPDIR, or the first usable one of OTHERS. Raises ServiceError, one line, where there is none."""
    refused = {}
    for folder in _candidates():
        if not (reason := why_not(folder)):
            return Place(folder, refused)
        refused[folder] = reason
    said = ", ".join(f"{folder} {reason}" for folder, reason in refused.items())
    mend = f"export TMPDIR=/a/folder  # at most {LONGEST} bytes long, with {ROOM // 2**20} MiB free"
    raise ServiceError(f"TMPDIR: there is no place for the sockets of a Ray ({said}); {mend}", {"mend": mend})


def why_not(folder: str, room: int = ROOM) -> str | None:
    """Why a Ray cannot have its folder there; None where it can."""
    if (length := len(os.fsencode(folder))) > LONGEST:
        return f"has a name of {length} bytes, and Ray's sockets leave room for {LONGEST}"
    try:
        with tempfile.TemporaryDirectory(prefix=PREFIX, dir=folder):
            free = free_bytes(folder)
    except OSError as error:
        return f"cannot be written to ({os.strerror(error.errno) if error.errno else error})"
    return f"is full: {free / 2**20:.0f} MiB free" if free < room else None


def remove_dead() -> int:
    """Delete the folders of runs that were killed, and end who still writes there; best effort, their number."""
    found = 0
    for path in (path for folder in _candidates() for path in Path(folder).glob(f"{PREFIX}*")):
        with contextlib.suppress(OSError, Timeout):
            if (path / IN_USE).is_file():
                with FileLock(path / IN_USE).acquire(timeout=0):
                    _end_writers(path / RAY)
                    shutil.rmtree(path / RAY, ignore_errors=True)
                    if not (path / RAY).exists():  # else somebody still writes there: the next run looks again
                        shutil.rmtree(path, ignore_errors=True)
                        found += 1
    return found


def _end_writers(folder: Path) -> None:
    """Kill the processes of a Ray without a run. Its agents, which no parent ends, would stay for a minute; their titles lie over command
    line and environment, so they are known by the files that they have open."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name().startswith(TITLE) and any(Path(file.path).is_relative_to(folder) for file in process.open_files()):
                process.kill()


def _candidates() -> list[str]:
    """What TMPDIR says, even where Python itself goes elsewhere, and so the next ones say why."""
    named = os.environ.get("TMPDIR")
    with contextlib.suppress(FileNotFoundError):  # no folder at all can be written to
        return list(dict.fromkeys([*([os.path.abspath(named)] if named else []), tempfile.gettempdir(), *OTHERS]))
    return list(dict.fromkeys([*([os.path.abspath(named)] if named else []), *OTHERS]))
