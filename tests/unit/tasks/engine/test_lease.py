"""Who works on a run that several machines can see: one at a time, taken over from the dead and the silent only."""

import os
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from autosparse.storage import paths
from autosparse.storage.open_store import open_store
from autosparse.storage.store import Store
from autosparse.tasks.engine import lease as leases
from autosparse.tasks.engine.lease import Holder, leased
from autosparse.tasks.garbage import orphans
from autosparse.tasks.limits import LEASE
from tests.pipeline.command_line import wait_for


def elsewhere(silence: float = 1000.0) -> Holder:
    """A process of another machine."""
    return Holder(id="0" * 32, host="far", pid=os.getpid(), machine="another boot", started="1", silence=silence)


def put(store: Store, term: int, holder: Holder) -> None:
    store.write_json(paths.lease_file("a", term, leases.HOLDER), asdict(holder))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def test_one_of_eight_at_a_time(store: Store) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        with leased(store, "a", lambda _: None):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.02)
            inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] * 8
    assert {key[1] for key in map(paths.leased, store.list(paths.LEASES)) if key} == {8}  # earlier terms are gone


def test_silence_of_another_machine_counts_by_ones_own_clock(store: Store) -> None:
    put(store, 4, elsewhere(silence=1.0))
    beats = iter(range(1, 100))
    ended = threading.Event()

    def beat() -> None:
        for _ in range(8):  # 1.6 s: longer than the silence that counts
            store.write_json(paths.lease_file("a", 4, leases.BEAT), next(beats))
            ended.wait(0.2)

    thread = threading.Thread(target=beat)
    thread.start()
    told: list[str] = []
    start = time.monotonic()
    with leased(store, "a", told.append) as lease:
        waited = time.monotonic() - start
        assert lease.term == 5
    thread.join()
    assert 2.0 < waited < 10.0  # 1.4 s of beats, 1 s of silence
    assert told == [f"process {os.getpid()} of far"]


def test_an_end_is_taken_at_once_and_a_timeout_leaves_nothing(store: Store) -> None:
    put(store, 1, elsewhere())
    with pytest.raises(TimeoutError), leased(store, "a", lambda _: None, timeout=0):
        pass
    assert store.list(paths.LEASES) == [paths.lease_file("a", 1, leases.HOLDER)]
    store.write_json(paths.lease_file("a", 1, leases.END), {})
    with leased(store, "a", lambda _: None, timeout=0) as lease:
        assert lease.term == 2


@pytest.mark.parametrize("term", [1, 2])  # a server that ignored the condition; a machine that took over
def test_who_was_overtaken_is_told(term: int, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEASE, "3")
    lost: list[str] = []
    with leased(store, "a", lambda _: None) as lease:
        assert lease.term == 1
        put(store, term, elsewhere())
        wait_for(lambda: lease.taken_by is not None, 10)
        lease.on_loss(lost.append)
    assert lost == [f"process {os.getpid()} of far"]


def test_gc_knows_leases_that_nobody_renews(store: Store) -> None:
    with leased(store, "a", lambda _: None), leased(store, "b", lambda _: None):
        old = time.time() - 7200
        for key in store.list(paths.leases("a")):
            os.utime(Path(store.root, key), (old, old))
        (found,) = orphans(store, 0)
        assert (found.kind, found.uri) == ("lease", store.uri("leases/a")) and 1.9 < found.hours < 2.1
        assert orphans(store, 3) == []
        found.remove(store)
    assert {key.split("/")[1] for key in store.list(paths.LEASES)} >= {"b"}


@pytest.mark.parametrize(
    ("machine", "pid", "started", "dead"), [("", 0, "", False), ("far", 0, "", False), ("", 0, "1", True), ("", 2**22, "5", True)]
)
def test_only_processes_of_this_machine_are_seen_to_be_dead(machine: str, pid: int, started: str, dead: bool) -> None:
    known: dict[str, Any] = {"id": "", "host": "", "silence": 1.0}
    pid, machine = pid or os.getpid(), machine or leases._machine()
    assert Holder(**known, machine=machine, pid=pid, started=started or leases._started(pid)).is_dead() is dead
