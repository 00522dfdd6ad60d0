"""Folders and what lies in them: the home, the storage, the room on their disks, the code that a run imports."""

import contextlib
import os
import time
from pathlib import Path
from uuid import uuid4

from autosparse.models.errors import ConflictError, DataError
from autosparse.storage.addresses import is_local
from autosparse.storage.disk import free_bytes
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import probe
from autosparse.tasks.doctor.finding import Finding, ok, warning
from autosparse.tasks.home import check_home
from autosparse.tasks.settings import CODE, Settings

ROOT = Path("/")
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "ceph", "afs", "9p", "fuse.sshfs", "fuse.glusterfs", "fuse.juicefs")
LEAST_ROOM = 5 * 2**30
GIB = 2**30


def home(settings: Settings) -> Finding:
    """Whether it can be written to and locked. Raises SpecError."""
    check_home(settings.home)
    return ok(str(settings.home))


def home_disk(settings: Settings, root: Path = ROOT) -> Finding:
    """The kind of file system of the home, which has SQLite databases: a network's may lose their locks."""
    kind = file_system(settings.home, root)
    if kind in NETWORK:
        return warning(
            f"home: {settings.home} lies on {kind}, whose locks SQLite cannot rely on: a run at a time, from one machine",
            "export AUTOSPARSE_HOME=/a/folder/on/a/local/disk  # results may stay: AUTOSPARSE_STORAGE",
        )
    return ok(kind)


def storage(settings: Settings) -> Finding:
    """Write, read, create only once, delete. Raises DataError, ServiceError or SpecError."""
    store, key = open_store(settings.storage), probe(uuid4().hex)
    start = time.monotonic()
    try:
        store.create(key, b"probe")
        if store.read(key) != b"probe":
            raise DataError(f"storage: {store.uri(key)} holds other bytes than were written")
        try:
            store.create(key, b"other")
        except ConflictError:
            once = True
        else:
            once = False
    finally:
        with contextlib.suppress(Exception):  # what was wrong is said by what came first
            store.delete(key)
    if not once:
        return warning(f"storage: {settings.storage} writes over what is there, so that two machines may take one name")
    return ok(f"{settings.storage}, {time.monotonic() - start:.1f} s for a file")


def room(settings: Settings) -> Finding:
    """What is free on the disks of the home and of a local storage."""
    places = {"home": str(settings.home)} | ({"storage": settings.storage} if is_local(settings.storage) else {})
    free = {name: free_bytes(place) for name, place in places.items()}
    said = ", ".join(f"{name} {bytes_ / GIB:,.1f} GiB free" for name, bytes_ in free.items())
    if min(free.values()) < LEAST_ROOM:
        return warning(f"disk: {said}; a run says itself what it needs", "autosparse gc --delete")
    return ok(said)


def code(settings: Settings) -> Finding:
    """The folder of one's own modules."""
    if settings.code is None:
        return warning("code: the current folder was removed", f"cd somewhere, or export {CODE}=/folder/of/your/modules")
    if not settings.code.is_dir():
        return warning(f"code: {settings.code} ({CODE}) is no folder: package.module:object will not be found", f"export {CODE}=/folder")
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return ok(f"{settings.code}" + (f", PYTHONPATH {os.pathsep.join(named)}" if any(named) else ""))


def file_system(folder: Path, root: Path = ROOT) -> str:
    """The kind of file system that a folder lies on, by the longest mount point above it; `unknown` where the system does not say."""
    try:
        lines = (root / "proc/mounts").read_text().splitlines()
    except OSError:
        return "unknown"
    mounts = [words for words in map(str.split, lines) if len(words) > 2]
    kinds = {words[1].replace("\\040", " "): words[2] for words in mounts}  # the last one on a place counts
    places = [str(place) for place in (folder, *folder.parents)]
    return next((kinds[place] for place in places if place in kinds), "unknown")
