"""What killed processes left in a storage: unfinished writes, checkpoints of steps that are done, leases of runs that nobody works on."""

import time
from dataclasses import dataclass

from autosparse.models.errors import not_allowed
from autosparse.storage import paths
from autosparse.storage.leftovers import Leftover
from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Entry, Store

TRAINING = "training folder"
LEASE, LEASE_HOURS = "lease", 1.0  # younger ones may be of a machine that comes back


@dataclass(frozen=True, kw_only=True)
class Orphan:
    """`where` is an unfinished write, or the key of a folder; `hours` since its last byte, by the clock of the storage; `size` in bytes."""

    kind: str
    uri: str
    hours: float
    where: Leftover | str
    size: int

    def remove(self, store: Store) -> None:
        """Gone for good. Raises DataError or ServiceError."""
        if isinstance(self.where, Leftover):
            store.discard(self.where)
        else:
            store.delete(self.where)


def orphans(store: Store, older_than: float) -> list[Orphan]:
    """All of them that are older than so many hours, below the root of this store only.

    The age is the only sign of a write that is still under way: 0 finds those too. Raises SpecError for a negative age.
    """
    if not older_than >= 0:
        raise not_allowed("--older-than", older_than, ">= 0 hours")
    now = time.time()
    found = [
        Orphan(kind=one.kind, uri=f"{store.root}/{one.key}", hours=(now - one.started) / 3600, where=one, size=one.size)
        for one in store.leftovers()
    ]
    entries = store.entries(paths.RUNS)
    found += [_folder(TRAINING, store, folder, entries, now) for folder in _done_trainings([entry.key for entry in entries])]
    entries = store.entries(paths.LEASES)
    leased = sorted({paths.leases(key[0]) for key in (paths.leased(entry.key) for entry in entries) if key})
    leases = [_folder(LEASE, store, folder, entries, now) for folder in leased]
    found += [one for one in leases if one.hours >= LEASE_HOURS]  # a run at work renews its lease all the time
    return [orphan for orphan in found if orphan.hours >= older_than]


def _folder(kind: str, store: Store, folder: str, entries: list[Entry], now: float) -> Orphan:
    inside = [entry for entry in entries if entry.key.startswith(f"{folder}/")]
    hours, size = (now - max(entry.changed for entry in inside)) / 3600, sum(entry.size for entry in inside)
    return Orphan(kind=kind, uri=store.uri(folder), hours=hours, where=folder, size=size)


def _done_trainings(keys: list[str]) -> list[str]:
    """Folders of checkpoints whose step has its report."""
    there, done = set(), set()
    for key in keys:
        if folder := paths.checkpoint_folder(key):
            there.add(folder)
        elif (step := paths.reported(key)) and (name := paths.run_of(key)):
            done |= set(RunPaths(name).checkpoints(step))
    return sorted(there & done)
