"""Records reach a service that comes and goes: in order, each once, also those of a process that was killed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autosparse.tasks.tracking import spool
from autosparse.tasks.tracking.spool import Record, RefusedError, Spool


class Service:
    """Takes records while it is there."""

    def __init__(self) -> None:
        self.there = True
        self.has: list[object] = []

    def take(self, record: Record, content: bytes | None) -> None:
        if not self.there:
            raise ConnectionError("away")
        if record["n"] == "never":
            raise RefusedError("no such field")
        self.has.append(record["n"] if content is None else (record["n"], content))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "FIRST_PAUSE", 0.01)


def test_what_waited_comes_in_order_with_its_content_and_nothing_is_left(tmp_path: Path) -> None:
    service = Service()
    service.there = False
    box = Spool(tmp_path / "box", service.take)
    start = time.monotonic()
    for number in range(50):
        box.put({"n": number}, b"file" if number == 7 else None)
    assert time.monotonic() - start < 1  # nobody waits for the service
    assert not box.drain(0.1)
    assert (box.waiting, box.trouble) == (50, "away")
    service.there = True
    assert box.drain(10)
    assert service.has == [(7, b"file") if number == 7 else number for number in range(50)]
    assert box.trouble is None
    box.close()
    assert not (tmp_path / "box").exists()


def test_a_record_that_is_refused_for_good_holds_up_no_other(tmp_path: Path) -> None:
    service = Service()
    box = Spool(tmp_path / "box", service.take)
    for number in (1, "never", 2):
        box.put({"n": number})
    assert box.drain(10)
    assert service.has == [1, 2]
    box.close()


def test_nobody_waits_once_the_run_is_called_off(tmp_path: Path) -> None:
    service = Service()
    service.there = False
    box = Spool(tmp_path / "box", service.take)
    box.put({"n": 1})
    box.called_off.set()
    start = time.monotonic()
    assert not box.drain(60)
    assert time.monotonic() - start < 5
    box.close()
    assert (tmp_path / "box").exists()


def test_what_a_killed_process_wrote_is_handed_over_and_its_torn_line_is_not(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from autosparse.tasks.tracking.spool import Spool
seen = []
def take(record, content):
    if record["n"] == 3: raise ConnectionError("away")
    print(record["n"], flush=True)
box = Spool(Path(sys.argv[1]), take)
for n in range(6): box.put({"n": n}, b"x" if n == 5 else None)
while not box.trouble: pass
os.write(box._records, b'{"n": 6')
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "box")], capture_output=True, text=True, timeout=60, env={**os.environ}
    )
    assert killed.returncode == -9, killed.stderr
    assert killed.stdout.split() == ["0", "1", "2"]
    service = Service()
    box = Spool(tmp_path / "box", service.take)
    box.put({"n": 7})
    assert box.drain(10)
    assert service.has == [3, 4, (5, b"x"), 7]
    box.close()
