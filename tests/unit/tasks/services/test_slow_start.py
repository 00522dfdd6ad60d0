"""A service and a Ray that are slow to start are waited for, with a word."""

import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from autosparse.models.errors import ServiceError
from autosparse.tasks import settings
from autosparse.tasks.cluster import start
from autosparse.tasks.limits import START
from autosparse.tasks.services import processes as service_processes
from autosparse.tasks.services.commands import Launch

SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_slow_service_is_waited_for_with_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_processes, "WORD_SECONDS", 0.3)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
    launch = Launch(name="slow", command=SLEEP, address="", health=(f"http://127.0.0.1:{address[1]}/",))
    process = service_processes.start(launch, environment=os.environ, folder=tmp_path)
    told: list[str] = []
    served: list[HTTPServer] = []

    def serve() -> None:
        served.append(HTTPServer(address, Healthy))
        served[0].serve_forever()

    late = threading.Timer(1.0, serve)
    try:
        late.start()
        service_processes.await_answering([process], tell=told.append)
        assert [line.split(",")[0] for line in told] == ["waiting: slow slow to start"] and "of at most 300 s" in told[0]
        served[0].shutdown()
        served[0].server_close()
        monkeypatch.setenv(START, "1")
        with pytest.raises(ServiceError, match="^slow: did not answer within 1 s"):
            service_processes.await_answering([process])
    finally:
        service_processes.stop([process], 1)


def test_a_slow_ray_is_taken_away_and_tried_again(monkeypatch: pytest.MonkeyPatch, clean_settings: Path) -> None:
    """What Ray does on a machine that is busy: processes are started, then it gives up on them."""
    monkeypatch.setenv("RAY_TMPDIR", "")
    tries: list[subprocess.Popen[bytes]] = []

    def init(**_: object) -> None:
        tries.append(subprocess.Popen(SLEEP))
        if len(tries) < 3:
            raise Exception("The current node timed out during startup. This could happen because\nof a busy machine.")
        raise ValueError("no such option")

    monkeypatch.setattr(start.ray, "init", init)
    told: list[str] = []
    with pytest.raises(ServiceError, match=r"^ray: a local Ray could not be reached \(no such option\); its logs: \S+/ray-logs$"):
        start.start(settings.load(), None, told.append)
    assert len(told) == 2 and all(line.startswith("waiting: a local Ray is slow to start (The current node timed out") for line in told)
    assert len(tries) == 3
    for process in tries:
        process.wait(10)  # not for the sleep of a minute
    assert not Path(os.environ["RAY_TMPDIR"]).exists()


def test_a_slow_ray_is_given_up_in_one_line(monkeypatch: pytest.MonkeyPatch, clean_settings: Path) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "")
    monkeypatch.setenv(START, "1")
    clock = iter([0.0, 0.5, 40.0])
    monkeypatch.setattr(start.time, "monotonic", lambda: next(clock, 40.0))

    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(start.ray, "init", init)
    told: list[str] = []
    with pytest.raises(ServiceError, match=rf"timed out during startup\., 40 s of trying, {START}\); its logs: \S+$"):
        start.start(settings.load(), None, told.append)
    assert len(told) == 1
