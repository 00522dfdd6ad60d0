"""What killed processes left in a storage: unfinished writes, checkpoints of steps that are done, leases of runs that nobody works on."""

import time
from dataclasses import dataclass

from autosparse.models.errors import not_allowed
from autosparse.storage import paths
from autosparse.storage.leftovers import Leftover
from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Store

TRAINING = "training folder"
LEASE, LEASE_HOURS = "lease", 1.0  # younger ones may be of a machine that comes back


@dataclass(frozen=True, kw_only=True)
class Orphan:
    """`where` is an unfinished write, or the key of a folder; `hours` since its last byte, by the clock of the storage."""

    kind: str
    uri: str
    hours: float
    where: Leftover | str

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
    found = [Orphan(kind=one.kind, uri=f"{store.root}/{one.key}", hours=(now - one.started) / 3600, where=one) for one in store.leftovers()]
    for folder in _done_trainings(store.list(paths.RUNS)):
        found.append(Orphan(kind=TRAINING, uri=store.uri(folder), hours=(now - store.changed(folder)) / 3600, where=folder))
    for folder in {paths.leases(key[0]) for key in map(paths.leased, store.list(paths.LEASES)) if key}:
        hours = (now - store.changed(folder)) / 3600  # a run at work renews its lease all the time
        found += [Orphan(kind=LEASE, uri=store.uri(folder), hours=hours, where=folder)] if hours >= LEASE_HOURS else []
    return [orphan for orphan in found if orphan.hours >= older_than]


def _done_trainings(keys: list[str]) -> list[str]:
    """Folders of checkpoints whose step has its report."""
    there, done = set(), set()
    for key in keys:
        if folder := paths.checkpoint_folder(key):
            there.add(folder)
        elif (step := paths.reported(key)) and (name := paths.run_of(key)):
            done |= set(RunPaths(name).checkpoints(step))
    return sorted(there & done)
