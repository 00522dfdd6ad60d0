"""One process at a time works on a run: of a machine by a lock of its file system, of all machines that share an S3 storage by a lease."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from autosparse.models.errors import ConflictError
from autosparse.storage.open_store import open_store
from autosparse.tasks.engine.lease import Lease, leased
from autosparse.tasks.settings import Settings

POLL_SECONDS = 0.5


@contextmanager
def sole(settings: Settings, name: str, tell: Callable[[str], None], *, timeout: float = -1) -> Iterator[Lease | None]:
    """Hold the run called `name`, which ends with this process at the latest; `tell` hears who has it where that means waiting.

    Gives the lease where the storage is shared by machines. Raises TimeoutError after `timeout` seconds, -1 waits for ever; DataError or
    ServiceError of such a storage.
    """
    path = _file(settings, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(path), path.with_suffix(".holder")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tell(f"process {_read(holder)}")
        lock.acquire(timeout=timeout, poll_interval=POLL_SECONDS)
    try:
        holder.write_text(str(os.getpid()))
        if _between_machines(settings):
            with leased(open_store(settings.storage), name, tell, timeout=timeout) as lease:
                yield lease
        else:
            yield None
    finally:
        lock.release()


def _between_machines(settings: Settings) -> bool:
    return "://" in settings.storage


@contextmanager
def alone(settings: Settings, name: str, allowed: str) -> Iterator[None]:
    """Hold the run called `name` without waiting. Raises ConflictError while it is at work; `allowed` says what to do then."""
    held: list[str] = []
    try:
        with sole(settings, name, held.append, timeout=0):
            yield
    except TimeoutError as error:
        if not held:
            raise
        raise ConflictError(f"run: {name!r} is at work in {held[0]}; allowed: {allowed}") from error


def forget(settings: Settings, name: str) -> None:
    """Remove the files of the lock of a run that is held here and gone; whoever waits for it notices."""
    path = _file(settings, name)
    for file in (path, path.with_suffix(".holder")):
        file.unlink(missing_ok=True)


def _file(settings: Settings, name: str) -> Path:
    """With local storage beside the runs, for all homes that use it; else in the home."""
    if not _between_machines(settings):
        return Path(settings.storage) / ".locks" / f"{name}.lock"
    return settings.home / "locks" / f"{name}-{hashlib.sha256(settings.storage.encode()).hexdigest()[:16]}.lock"


def _read(holder: Path) -> str:
    try:
        return holder.read_text() or "unknown"
    except OSError:
        return "unknown"
