"""Servers of a test's own that can be killed and started again at the same place, and what they know of a run."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from autosparse.tasks.services import commands as service_commands
from autosparse.tasks.services import processes as service_processes
from autosparse.tasks.services.commands import Launch
from tests.pipeline.command_line import environment

# Each process that tests has ten ports of its own: a server that is away for a while must not find its port taken by one of the other half.
PORTS_FROM = 20000 + os.getpid() % 1000 * 10


class Server:
    """One server process, living or not; its address stays the same."""

    def __init__(self, launch: Launch, home: Path) -> None:
        self.launch, self.home = launch, home
        self.start()

    @property
    def address(self) -> str:
        """What a client is told."""
        return self.launch.address

    def start(self) -> None:
        """Start it and wait until it answers."""
        own = environment(self.home, PREFECT_HOME=str(self.home / "prefect"))
        self.process = service_processes.start(self.launch, environment=own, folder=self.home)
        service_processes.await_answering([self.process])

    def kill(self) -> None:
        """SIGKILL to all its processes."""
        service_processes.stop([self.process], 0)
        for left in service_processes.processes([self.process]):
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()


@contextmanager
def mlflow_server(home: Path) -> Iterator[Server]:
    """MLflow on the database and the artifacts that a run in that home would use without a server."""
    ports = {"mlflow": service_processes.free_port(PORTS_FROM)}
    with _killed_in_the_end(
        Server(service_commands.mlflow_server(ports, database=f"sqlite:///{home / 'mlflow.db'}", artifacts=home / "mlflow-artifacts"), home)
    ) as server:
        yield server


@contextmanager
def prefect_server(home: Path) -> Iterator[Server]:
    """Prefect on a database in that home."""
    ports = {"prefect": service_processes.free_port(PORTS_FROM)}
    with _killed_in_the_end(Server(service_commands.prefect_server(ports), home)) as server:
        yield server


@contextmanager
def _killed_in_the_end(server: Server) -> Iterator[Server]:
    try:
        yield server
    finally:
        server.kill()


def prefect(api: str, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The `prefect` command against that server."""
    own = environment(home, PREFECT_API_URL=api, PREFECT_HOME=str(home / "prefect"))
    return subprocess.run(
        [service_commands.program("prefect"), "--no-prompt", *arguments], env=own, capture_output=True, text=True, timeout=120
    )


def flow_runs(api: str, home: Path, name: str) -> list[dict[str, Any]]:
    """The flow runs of that name, as `prefect flow-run ls` shows them."""
    listed = prefect(api, home, "flow-run", "ls", "--limit", "200", "-o", "json")
    assert listed.returncode == 0, listed.stderr
    return [one for one in json.loads(listed.stdout) if one["name"] == name]
