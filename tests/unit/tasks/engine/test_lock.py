"""One process of a machine at a time has a run; the lock ends with its process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import Timeout

from autosparse.tasks import settings
from autosparse.tasks.engine.lock import sole

HOLD = """
import time
from autosparse.tasks import settings
from autosparse.tasks.engine.lock import sole
with sole(settings.load(), "a", print):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_waits_until_the_first_is_gone(clean_settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOSPARSE_STORAGE", str(clean_settings / "storage"))
    found = settings.load()
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, env={**os.environ}) as first:
        assert first.stdout
        assert first.stdout.readline() == "held\n"
        told: list[str] = []
        with pytest.raises(Timeout), sole(found, "a", told.append, timeout=0):
            pass
        assert told == [f"process {first.pid}"]
        with sole(found, "b", told.append, timeout=0):
            assert len(told) == 1
        first.kill()
        first.wait()
        with sole(found, "a", told.append, timeout=10):
            pass
