"""Processes that outlive the command that started them: start, find again, stop.

Each one carries a random mark in its environment, which its children inherit. Whatever group or session they move to, and even
when a parent died before them, they are found by it; a process that merely got the same id later never is.
"""

import contextlib
import http.client
import os
import signal
import socket
import time
import urllib.error
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from autosparse.models.errors import ServiceError, without_password
from autosparse.tasks.limits import START, limit
from autosparse.tasks.proxies import opener
from autosparse.tasks.services.commands import Launch

MARK = "AUTOSPARSE_SERVICE"
WORD_SECONDS = 20  # of silence, before somebody is told
STOP_SECONDS = 10
POLL_SECONDS = 0.1
EMPTY_LOOKS = 10
ANSWER_SECONDS = 2
HTTP_OK = 200
NO_ANSWER = (OSError, http.client.HTTPException, ValueError)
LAST_PORT = 65535
RELEASE_SECONDS = 5
LOG_TAIL_BYTES = 8192


@dataclass(frozen=True, kw_only=True)
class ServiceProcess:
    """A started service; the fields of `Launch` plus how to find it again."""

    name: str
    address: str
    page: str | None
    health: tuple[str, ...]
    pid: int
    mark: str
    log: str


def start(launch: Launch, *, environment: Mapping[str, str], folder: Path) -> ServiceProcess:
    """Start it in a session of its own, in `folder`, with stdout and stderr in <folder>/logs/<name>.log; do not wait for it.

    What was said there before is kept in <name>.log.1: the last words of a service that died.
    """
    log = folder / "logs" / f"{launch.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        log.replace(f"{log}.1")
    mark = uuid.uuid4().hex
    pid = os.posix_spawn(
        "/bin/sh",
        ["sh", "-c", 'cd "$0" && exec "$@"', str(folder), *launch.command],
        {**environment, **launch.environment, MARK: mark},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigdef=[signal.SIGINT],  # a shell's background job ignores it, and a Prefect worker stops by nothing else
    )
    return ServiceProcess(
        name=launch.name, address=launch.address, page=launch.page, health=launch.health, pid=pid, mark=mark, log=str(log)
    )


def is_running(service: ServiceProcess) -> bool:
    """Whether the process that was started is still there."""
    try:
        process = psutil.Process(service.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        for _ in range(EMPTY_LOOKS):
            if environment := process.environ():
                return environment.get(MARK) == service.mark
            time.sleep(POLL_SECONDS / EMPTY_LOOKS)  # empty for a moment while one program replaces another
        return False
    except psutil.Error:
        return False


def is_answering(service: ServiceProcess) -> bool:
    """Whether every health URL answers 200."""
    try:
        return all(_get(url) == HTTP_OK for url in service.health)
    except NO_ANSWER:
        return False


def await_answering(services: Iterable[ServiceProcess], seconds: float | None = None, tell: Callable[[str], None] = lambda _: None) -> None:
    """Wait until all answer. Raises ServiceError as soon as one has died, or after `seconds`, by default AUTOSPARSE_START_SECONDS.

    `tell` hears once of one that is slow.
    """
    begin, most, told = time.monotonic(), limit(START) if seconds is None else seconds, False
    pending = list(services)
    while pending:
        for service in pending:
            if not is_running(service):
                raise ServiceError(f"{service.name}: ended while starting ({last_line(service.log)}); its log: {service.log}")
        pending = [service for service in pending if not is_answering(service)]
        waited = time.monotonic() - begin
        if pending and waited > most:
            late = pending[0]
            raise ServiceError(f"{late.name}: did not answer within {most:.0f} s ({last_line(late.log)}); its log: {late.log}")
        if pending and waited > WORD_SECONDS and not told:
            told = True
            tell(f"waiting: {', '.join(one.name for one in pending)} slow to start, {waited:.0f} of at most {most:.0f} s ({START})")
        time.sleep(POLL_SECONDS if pending else 0)


def why_unreachable(url: str) -> str | None:
    """None when a server that somebody else runs answers anything at all, an error page included; else the reason."""
    try:
        _get(url)
    except NO_ANSWER as error:
        return str(getattr(error, "reason", error))
    return None


def processes(services: Iterable[ServiceProcess]) -> list[psutil.Process]:
    """The processes of these services that are alive: all that carry the mark, and their descendants (some overwrite their environment)."""
    marks = {service.mark for service in services}
    found: dict[psutil.Process, None] = {}
    for process in psutil.process_iter():
        if _mark(process) in marks:
            found[process] = None
            try:
                found.update(dict.fromkeys(process.children(recursive=True)))
            except psutil.NoSuchProcess:
                continue
    return list(found)


def stop(services: Sequence[ServiceProcess], seconds: float = STOP_SECONDS) -> None:
    """Ask all processes of these services to end, and kill those that are left after `seconds`."""
    end(processes(services), seconds)
    end(processes(services), 0)  # whatever was being started in the meantime


def end(found: Iterable[psutil.Process], seconds: float = STOP_SECONDS) -> None:
    """SIGTERM to the outermost of these processes, SIGKILL to all that are left after `seconds`; returns when they are gone."""
    found = list(found)
    ids = {process.pid for process in found}
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.ppid() not in ids:  # a parent ends its children in the right order: Ray takes 3 s then, otherwise 12
                process.terminate()
    _, alive = psutil.wait_procs(found, timeout=seconds)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=STOP_SECONDS)


def free_port(preferred: int, taken: Iterable[int] = (), host: str = "127.0.0.1") -> int:
    """The first port from `preferred` on that nobody listens on and that is not `taken`. Raises ServiceError when there is none."""
    for port in range(preferred, LAST_PORT):
        if port in taken:
            continue
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections that linger do not count
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise ServiceError(f"port: none is free from {preferred} on")


def await_free(port: int, host: str = "127.0.0.1", seconds: float = RELEASE_SECONDS) -> None:
    """Return when nobody listens on the port, or after `seconds`: a killed process keeps it until the system has cleared it away."""
    end = time.monotonic() + seconds
    while free_port(port, host=host) != port and time.monotonic() < end:
        time.sleep(POLL_SECONDS)


def last_line(log: str | Path) -> str:
    """The last line of a log that says anything, without passwords of URLs."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.path.getsize(log) - LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        lines = []
    line = next((line.strip() for line in reversed(lines) if line.strip()), "empty log")
    return without_password(line)


def _mark(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except psutil.Error:  # gone, a zombie, or somebody else's
        return None


def _get(url: str) -> int:
    try:
        with opener(url).open(url, timeout=ANSWER_SECONDS) as answer:
            return answer.status
    except urllib.error.HTTPError as answer:
        answer.close()
        return answer.code
