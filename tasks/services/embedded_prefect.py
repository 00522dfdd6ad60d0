"""The Prefect server of one `autosparse run` without a server: on a free port, gone with the run.

Prefect would start the same by itself, but in the terminal's process group: Ctrl-C would end the server before the run can
tell it that it was cancelled, and the run would wait minutes for it to come back.
"""

import atexit
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from filelock import FileLock

from autosparse.tasks.services import processes as service_processes
from autosparse.tasks.services.commands import LOOPBACK, Launch
from autosparse.tasks.settings import EMBEDDED_PREFECT, Settings


@contextmanager
def prefect_starting(settings: Settings, tell: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Have PREFECT_API_URL point at a server until this process ends; it answers when the block ends. Raises ServiceError.

    `tell` hears of a server that is slow to start.

    Prefect reads the address when it is imported: import it in the block, while its server starts.
    """
    if settings.prefect_api_url:
        yield
        return
    settings.home.mkdir(parents=True, exist_ok=True)
    with FileLock(settings.home / "prefect-embedded.lock"):  # two servers that set up one database at the same moment die of it
        server = service_processes.start(_launch(), environment=os.environ, folder=settings.home)
        atexit.register(service_processes.stop, [server])  # after Prefect's threads, which send their last events while Python ends
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _end)
        os.environ["PREFECT_API_URL"] = os.environ[EMBEDDED_PREFECT] = server.address
        yield
        service_processes.await_answering([server], tell=tell)


def _end(number: int, _frame: object) -> None:
    """By default SIGTERM ends Python without its exit handlers, and the server would stay; Prefect hands it on after a run."""
    sys.exit(128 + number)


def _launch() -> Launch:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    where = ("--host", LOOPBACK, "--port", str(port), "--log-level", "error")
    api = f"http://{LOOPBACK}:{port}/api"
    return Launch(
        name="prefect-embedded",
        command=(sys.executable, "-P", "-m", "uvicorn", *where, "--lifespan", "on", "--factory", "prefect.server.api.server:create_app"),
        address=api,
        health=(f"{api}/health",),
        environment={"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"},
    )
