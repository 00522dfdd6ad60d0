"""What each run takes up in the storage, and which runs are too old or too much."""

import time
from collections.abc import Collection
from dataclasses import dataclass

from autosparse.models.errors import not_allowed
from autosparse.storage import paths
from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Store

DAY = 24 * 3600


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Files and bytes of a run; `changed`: when its last file was written, in seconds since 1970; `cleared`: only tables are left."""

    name: str
    files: int
    size: int
    changed: float
    cleared: bool


def usage(store: Store) -> list[Usage]:
    """Every run of the storage from one listing, the one written last first. Staging files count."""
    found: dict[str, list[tuple[int, float, str]]] = {}
    for entry in store.entries(paths.RUNS):
        if name := paths.run_of(entry.key):
            found.setdefault(name, []).append((entry.size, entry.changed, entry.key))
    runs = [
        Usage(
            name=name,
            files=len(files),
            size=sum(size for size, _, _ in files),
            changed=max(changed for _, changed, _ in files),
            cleared=any(key == RunPaths(name).cleared for _, _, key in files),
        )
        for name, files in found.items()
    ]
    return sorted(runs, key=lambda run: (-run.changed, run.name))


def to_go(runs: Collection[Usage], *, days: float | None, size: int | None, kept: Collection[str] = ()) -> list[Usage]:
    """The runs that go, oldest first: last written more than `days` ago, or the oldest until the rest is at most `size` bytes.

    Those that are `kept` stay and count. Raises SpecError for a negative number.
    """
    if days is not None and not days >= 0:
        raise not_allowed("--keep-days", days, ">= 0")
    total, found = sum(run.size for run in runs), []
    for run in sorted(runs, key=lambda run: run.changed):
        old = days is not None and run.changed < time.time() - days * DAY
        if run.name not in kept and (old or (size is not None and total > size)):
            found.append(run)
            total -= run.size
    return found
