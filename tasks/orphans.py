"""What a killed run leaves behind: its embedded Prefect server and Ray's agents have no parent that would end them."""

import psutil

from tasks.settings import Settings

MARKS = ("prefect.server.api.server", "ray/dashboard/agent.py", "runtime_env/agent/main.py")
WAIT_SECONDS = 5


def sweep(settings: Settings) -> int:
    """End processes of dead embedded runs of this home, so that they hold neither its database nor memory; their number."""
    found = [process for process in psutil.process_iter() if _is_orphan(process, str(settings.home))]
    for process in found:
        process.terminate()
    _, alive = psutil.wait_procs(found, timeout=WAIT_SECONDS)
    for process in alive:
        process.kill()
    return len(found)


def _is_orphan(process: psutil.Process, home: str) -> bool:
    try:
        if process.ppid() != 1 or not any(mark in " ".join(process.cmdline()) for mark in MARKS):
            return False
        environment = process.environ()
    except psutil.Error:
        return False
    # servers of `autosparse up` run with a safe path; those of an embedded run do not
    return environment.get("PREFECT_HOME") == f"{home}/prefect" and "PYTHONSAFEPATH" not in environment
