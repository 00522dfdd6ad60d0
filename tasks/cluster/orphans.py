"""What a killed run leaves behind: embedded Prefect, which no parent ends, and its local Ray (folder.py).

And what Ray leaves behind that ends in good order.
"""

import contextlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psutil

from autosparse.tasks.cluster.folder import remove_dead
from autosparse.tasks.settings import Settings

MARK = "prefect.server.api.server"
WAIT_SECONDS = 5
END_SECONDS = 10


def sweep(settings: Settings) -> int:
    """End processes of dead embedded runs of this home, so that they hold neither its database nor memory; their number.

    Local Rays whose run is dead are ended and their folders removed, whatever its home.
    """
    found = [process for process in psutil.process_iter() if _is_orphan(process, str(settings.home))]
    for process in found:
        process.terminate()
    _, alive = psutil.wait_procs(found, timeout=WAIT_SECONDS)
    for process in alive:
        process.kill()
    remove_dead()
    return len(found)


def descendants(started: Sequence["subprocess.Popen[bytes]"]) -> list[psutil.Process]:
    """All processes below these that live."""
    found = []
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += psutil.Process(process.pid).children(recursive=True)
    return found


def end_those_of(folder: Path) -> None:
    """Kill the processes of a local Ray in that folder which this process has started."""
    found = [process for process in psutil.Process().children(recursive=True) if _tells_of(process, str(folder))]
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(found, timeout=END_SECONDS)


def _tells_of(process: psutil.Process, folder: str) -> bool:
    try:
        return process.environ().get("RAY_TMPDIR") == folder or folder in " ".join(process.cmdline())
    except psutil.Error:
        return False


def await_end(started: Sequence["subprocess.Popen[bytes]"], workers: Sequence[psutil.Process]) -> None:
    """Wait for the processes of a local Ray that was shut down, and kill workers that do not end; Ray kills some and waits for none."""
    for process in started:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
    _, left = psutil.wait_procs(workers, timeout=END_SECONDS)
    for process in left:  # seen: the exit handlers of a controller waited for each other for ever
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _is_orphan(process: psutil.Process, home: str) -> bool:
    try:
        if process.ppid() != 1 or MARK not in " ".join(process.cmdline()):
            return False
        environment = process.environ()
    except psutil.Error:
        return False
    # servers of `autosparse up` run with a safe path; those of an embedded run do not
    return environment.get("PREFECT_HOME") == f"{home}/prefect" and "PYTHONSAFEPATH" not in environment
