"""One process of all machines at a time works on a run whose storage they share: a lease made of keys that are created once.

Terms are numbered. Whoever creates `holder` of the next term has it; nobody else ever writes into that term. The holder counts up its
`beat`, and writes `end` when it leaves. Whoever waits takes the next term once there is an end, once the holder's process is seen to be
dead (on the same machine), or once the beat has stood still for as long as the holder itself said, by the clock of the one who waits:
clocks of two machines are never compared. A holder that finds a higher term, or another holder in its own, has lost it.

A server that ignores `If-None-Match` leaves two of them the moment between looking and creating; the one that was overwritten finds out
with its next beat.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from autosparse.models.errors import ConflictError, DataError, ServiceError
from autosparse.storage import paths
from autosparse.storage.store import Store, dump_json
from autosparse.tasks.limits import LEASE, limit

BEATS = 8  # within the time after which silence counts
LOOK_S = 0.5  # how often the one who waits looks, at least
HOLDER, BEAT, END = "holder.json", "beat.json", "end.json"


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who has a term: `machine` and `started` tell the process from every other one of that machine; `silence` in seconds."""

    id: str
    host: str
    pid: int
    machine: str
    started: str
    silence: float

    def is_dead(self) -> bool:
        """Whether it was a process of this machine that is gone; of other machines nothing is known."""
        return self.machine == _machine() and self.started != _started(self.pid)


class Lease:
    """A term that is held, and renewed by a thread until `end`."""

    def __init__(self, store: Store, run: str, term: int, holder: Holder) -> None:
        self.store, self.run, self.term, self.holder = store, run, term, holder
        self.taken_by: str | None = None
        self._on_loss: Callable[[str], None] = lambda _: None
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def on_loss(self, call: Callable[[str], None]) -> None:
        """Have `call` told who took the run over, where somebody does or did: this process was silent for too long."""
        self._on_loss = call
        if self.taken_by:
            call(self.taken_by)

    def end(self) -> None:
        """Leave the run to others; best effort, because silence says the same later."""
        self._left.set()
        self._thread.join()
        try:
            self.store.write_json(paths.lease_file(self.run, self.term, END), {"id": self.holder.id})
        except (DataError, ServiceError):
            return

    def _beat(self) -> None:
        count = 0
        while not self._left.wait(self.holder.silence / BEATS):
            try:
                term, found, _, _ = _look(self.store, self.run)
                if (term, found and found.id) != (self.term, self.holder.id):
                    self.taken_by = _name(found)
                    self._on_loss(self.taken_by)
                    return
                count += 1
                self.store.write_json(paths.lease_file(self.run, self.term, BEAT), count)
            except (DataError, ServiceError):  # the storage is away; whoever took over by then is found when it is back
                continue


@contextmanager
def leased(store: Store, run: str, tell: Callable[[str], None], *, timeout: float = -1) -> Iterator[Lease]:
    """Hold the lease of a run inside the block; `tell` hears who has it where that means waiting.

    Raises TimeoutError after `timeout` seconds, -1 waits for ever; DataError or ServiceError of the storage.
    """
    lease = _acquire(store, run, tell, timeout)
    try:
        yield lease
    finally:
        lease.end()


def _acquire(store: Store, run: str, tell: Callable[[str], None], timeout: float) -> Lease:
    here, pid = socket.gethostname(), os.getpid()
    me = Holder(id=uuid4().hex, host=here, pid=pid, machine=_machine(), started=_started(pid), silence=limit(LEASE))
    begin = since = time.monotonic()
    seen, told = None, ""
    while True:
        term, holder, beat, ended = _look(store, run)
        now = time.monotonic()
        if (term, beat) != seen:
            seen, since = (term, beat), now
        free = ended or holder is None or holder.is_dead() or now - since > holder.silence
        if free and (lease := _take(store, run, term + 1, me)):
            return lease
        if holder and holder.id != told and not free:
            told = holder.id
            tell(_name(holder))
        if 0 <= timeout <= time.monotonic() - begin:
            raise TimeoutError(_name(holder))
        if not free:
            time.sleep(LOOK_S)


def _take(store: Store, run: str, term: int, me: Holder) -> Lease | None:
    """The term, unless somebody else was faster."""
    try:
        store.create(paths.lease_file(run, term, HOLDER), dump_json(asdict(me)))
    except ConflictError:
        return None
    found = {key[1] for key in map(paths.leased, store.list(paths.leases(run))) if key}
    if max(found) > term:  # the list from which we took it was older than `autosparse gc`
        return None
    for old in found - {term}:
        store.delete(paths.lease(run, old))
    return Lease(store, run, term, me)


def _look(store: Store, run: str) -> tuple[int, Holder | None, Any, bool]:
    """The highest term with its holder, its beat and whether it has ended; term 0 has neither."""
    found = [key for key in map(paths.leased, store.list(paths.leases(run))) if key]
    term = max((of for _, of, _ in found), default=0)
    files = {name for _, of, name in found if of == term}
    try:
        holder = Holder(**store.read_json(paths.lease_file(run, term, HOLDER))) if HOLDER in files else None
        beat = store.read_json(paths.lease_file(run, term, BEAT)) if BEAT in files else 0
    except DataError:
        if term == max((key[1] for key in map(paths.leased, store.list(paths.leases(run))) if key), default=0):
            raise  # not just removed by the next holder
        return _look(store, run)
    return term, holder, beat, END in files


def _name(holder: Holder | None) -> str:
    return f"process {holder.pid} of {holder.host}" if holder else "unknown"


def _machine() -> str:
    """What two processes have in common that can see each other: the boot of the machine and the space of process ids."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # not Linux
        return f"{socket.gethostname()}-{psutil.boot_time():.0f}"


def _started(pid: int) -> str:
    """When a process began, in ticks since the boot, which no clock that is set moves; "" where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        with suppress(psutil.Error):
            return "" if Path("/proc/self").exists() else f"{psutil.Process(pid).create_time():.0f}"
        return ""
