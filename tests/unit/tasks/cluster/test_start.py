"""A Ray that never answers."""

import subprocess
import sys

STUCK = "import time; from autosparse.tasks.cluster.start import given_up\nwith given_up({seconds}, 'ray: it is stuck'): time.sleep({work})"


def ended(seconds: float, work: float) -> tuple[int, str]:
    """Status and last words of a process whose call takes so long, and is waited for so long."""
    done = subprocess.run([sys.executable, "-c", STUCK.format(seconds=seconds, work=work)], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


def test_a_call_that_never_returns_ends_the_process_with_one_line() -> None:
    assert ended(0.2, 600) == (2, "error: ray: it is stuck\n")


def test_a_call_that_returns_ends_nothing() -> None:
    assert ended(30, 0) == (0, "")
