"""Deployment runs that are cancelled or killed, on services that `up` started where ports were taken and a stale Ray was named."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from autosparse.flows.recipes import smoke
from autosparse.models.specs.fields import override, to_plain
from autosparse.tasks import settings
from autosparse.tasks.services import processes as service_processes
from autosparse.tasks.services import up_down as services
from autosparse.tasks.services.up_down import ServicesState
from tests.faults.jobs import MID_EPOCH, driver, fresh, printed
from tests.faults.matrix import fault
from tests.faults.runs import CHANGES, RUN, mlflow_states, result, versions, with_faults
from tests.faults.servers import prefect
from tests.pipeline.command_line import ROOT, cli, environment, title_of, wait_for
from tests.pipeline.databases import give_databases

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(900)]
TAKEN = (4200, 5000, 8265)
STALE = "127.0.0.1:1"
CANCEL_SECONDS = 30
START_SECONDS = 300
WORKER_SECONDS = 15  # Prefect reports a killed process twice; the second report would end a retry that came before it
UUIDS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SPEC = json.dumps(to_plain(override(smoke(), CHANGES)))
HANGS = ("hung-in-round-0", "hung-in-round-1")
ON_RAY = ("RayTrainWorker", "Launcher", "_QueueActor")


PLAIN_TASK = """
import sys, time
from pathlib import Path
from autosparse.models.errors import JobError
from autosparse.models.specs.run_specs import JobSpec
from autosparse.tasks import settings
from autosparse.tasks.cluster.connection import connected
from autosparse.tasks.cluster.jobs import run_remote

def body(config):
    Path(config["struck"]).touch()
    time.sleep(10**6)

found = settings.load()
settings.export(found)
with connected(found) as cluster:
    try:
        run_remote(cluster, name="one", body=body, config={"struck": sys.argv[1]}, job=JobSpec(), on_event=print)
    except JobError as error:
        print("JobError")
"""


@dataclass
class Stack:
    """What `up` started, and the environment that it was started in."""

    settings: settings.Settings
    services: ServicesState

    @property
    def home(self) -> Path:
        return self.settings.home

    def prefect(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return prefect(self.services.addresses["prefect"], self.home, *arguments)

    def start(self) -> str:
        """The small run as a flow run of the deployment; its id."""
        started = self.prefect("deployment", "run", "autosparse/irp", "-p", f"spec={SPEC}", "-p", f"name={RUN}")
        assert started.returncode == 0, started.stdout + started.stderr
        return UUIDS.findall(started.stdout)[0]

    def flow_run(self, flow_run: str) -> dict[str, Any]:
        """What Prefect knows of it now."""
        with urllib.request.urlopen(f"{self.services.addresses['prefect']}/flow_runs/{flow_run}", timeout=60) as answer:
            return json.load(answer)

    def state(self, flow_run: str) -> str:
        """The state of a flow run now."""
        return self.flow_run(flow_run)["state_type"]

    def processes(self) -> list[psutil.Process]:
        return service_processes.processes(services.read_state(self.settings).processes.values())

    def on_ray(self) -> set[int]:
        """Processes that Ray runs for somebody's job."""
        return {process.pid for process in self.processes() if any(mark in title_of(process) for mark in ON_RAY)}

    def restart(self, service: str) -> None:
        """SIGKILL to all processes of the service, and `up` again: it is back at its address."""
        for process in service_processes.processes([services.read_state(self.settings).processes[service]]):
            process.kill()
        assert services.up(self.settings).addresses == self.services.addresses

    def engines(self) -> dict[int, str]:
        """The processes of flow runs, by id, and which flow run each is of."""
        found = [process for process in self.processes() if "prefect.engine" in title_of(process)]
        return {process.pid: process.environ()["PREFECT__FLOW_RUN_ID"] for process in found}

    def at_work(self) -> int:
        """The process that holds the run."""
        return int((Path(self.settings.storage) / ".locks" / f"{RUN}.holder").read_text())

    def await_hang(self, name: str) -> None:
        """Return once a worker hangs in the middle of an epoch."""
        wait_for((self.home / name).exists, START_SECONDS)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home, ray_folder = tmp_path_factory.mktemp("stack"), tmp_path_factory.mktemp("ray")
    (ray_folder / "ray").mkdir()
    (ray_folder / "ray" / "ray_current_cluster").write_text(STALE)
    give_databases(home)
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as held:
        for name in [name for name in os.environ if name not in environment(home)]:
            patch.delenv(name)
        # the first job hangs in its second epoch; the one that takes it up has too few steps left, the next job hangs there again
        hang = {"where": "autosparse.models.training.loop:train_step", "call": 6, "do": "hang"}
        hangs = [{**hang, "once": str(home / name)} for name in reversed(HANGS)]  # the last one is asked first
        stale = {"RAY_ADDRESS": STALE, "RAY_TMPDIR": str(ray_folder)}
        for name, value in {**environment(home, **with_faults(*hangs)), **stale}.items():
            patch.setenv(name, value)
        for port in TAKEN:
            taken = held.enter_context(socket.socket())
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections that linger do not count
            with contextlib.suppress(OSError):  # then somebody else has it, which is as good
                taken.bind(("127.0.0.1", port))
                taken.listen()
        here = settings.load()
        try:
            yield Stack(here, services.up(here))
        finally:
            services.down(here)


@fault(31, "ports 4200, 5000 and 8265 are taken", "the next free ones, known to settings and status")
def test_taken_ports(stack: Stack) -> None:
    pages = [process.page or "" for process in stack.services.processes.values()]
    assert not [page for page in pages for port in TAKEN if page.endswith(f":{port}")]
    shown = cli(stack.home, "status", COLUMNS="200")
    assert shown.stdout.count("answering") == 4, shown.stdout
    assert all(page in shown.stdout for page in pages)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOSPARSE_HOME", str(stack.home))
        found = settings.load()
    assert (found.prefect_api_url, found.mlflow_uri) == (stack.services.addresses["prefect"], stack.services.addresses["mlflow"])


@fault(32, "RAY_ADDRESS and ray_current_cluster name a cluster that is gone", "nobody goes there, `status` says so in a line")
def test_a_stale_ray(stack: Stack) -> None:
    """`up` itself ran in that environment; now a run with a Ray of its own, beside a living cluster that nobody asked for."""
    assert stack.services.addresses["ray"] != STALE
    shown = cli(stack.home, "status", RAY_ADDRESS=STALE)
    assert f"RAY_ADDRESS={STALE} is ignored; AUTOSPARSE_RAY_ADDRESS is the setting" in shown.stdout
    assert "RAY_ADDRESS" not in cli(stack.home, "status").stdout
    script = """
import ray
from autosparse.tasks import settings
from autosparse.tasks.cluster.connection import connected
found = settings.load()
settings.export(found)
with connected(found):
    print(ray.get_runtime_context().gcs_address)
"""
    alive = stack.services.addresses["ray"]
    own = {**environment(stack.home / "elsewhere"), **stack.services.environment, "RAY_ADDRESS": alive}
    joined = subprocess.run([sys.executable, "-c", script], env=own, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert joined.returncode == 0, joined.stderr
    assert joined.stdout.strip().splitlines()[-1] not in (alive, STALE)


@fault(
    16,
    "the deployment started twice at the same moment; the Prefect server is killed and started again meanwhile",
    "one works, the other waits for it, after the restart too, and takes up the run when the first is gone; one set of everything",
)
@fault(7, "`prefect flow-run cancel` during training", "Cancelled and workers gone within 30 s, and who waits has the run at once")
@fault(6, "flow process of a deployment run killed", "nothing of it left on Ray, `prefect flow-run retry` resumes, same bits")
def test_cancelled_then_killed_then_retried(undisturbed: dict[str, Any], stack: Stack) -> None:
    with ThreadPoolExecutor() as pool:
        both = [started.result() for started in [pool.submit(stack.start) for _ in range(2)]]
    stack.await_hang(HANGS[0])
    first, engines = stack.at_work(), stack.engines()
    cancelled = engines[first]
    (killed,) = set(both) - {cancelled}
    stack.restart("prefect")
    assert (stack.at_work(), stack.engines()) == (first, engines)
    assert {stack.state(one) for one in both} == {"RUNNING"}

    working = stack.on_ray()
    assert working
    assert stack.prefect("flow-run", "cancel", cancelled).returncode == 0
    start = time.monotonic()
    wait_for(lambda: stack.state(cancelled) == "CANCELLED")
    wait_for(lambda: not working & stack.on_ray())
    assert time.monotonic() - start < CANCEL_SECONDS

    stack.await_hang(HANGS[1])
    assert stack.engines() == {stack.at_work(): killed}
    os.kill(stack.at_work(), signal.SIGKILL)
    wait_for(lambda: stack.state(killed) == "CRASHED")
    wait_for(lambda: not stack.on_ray())
    time.sleep(WORKER_SECONDS)

    assert stack.prefect("flow-run", "retry", killed).returncode == 0
    wait_for(lambda: stack.state(killed) == "COMPLETED", START_SECONDS)
    found = result(stack.home / "storage")
    assert all(undisturbed[key] == value for key, value in found.items())
    assert set(mlflow_states(stack.home).values()) == {"FINISHED"}
    assert versions(stack.home) == ["1"]
    assert not list((stack.home / "spool").iterdir())
    wait_for(lambda: not stack.on_ray())


@fault(
    None,
    "the Ray of `up` killed under a Ray Train job and a plain task, and another one started at its address at once",
    "no driver takes the one for the other: both fail within seconds, and the same command goes on from the last checkpoint",
)
def test_another_ray_at_the_same_address(stack: Stack, tmp_path: Path) -> None:
    one, struck = fresh(tmp_path), [tmp_path / name for name in ("job", "task")]
    for name in HANGS:
        (stack.home / name).touch()  # they are another test's
    hang = {"where": "autosparse.models.training.loop:train_step", "call": MID_EPOCH, "do": "hang", "once": str(struck[0])}
    own = stack.services.environment
    with driver(stack.home, one, hang, **own) as job, plain_task(stack.home, struck[1], **own) as task:
        wait_for(lambda: struck[0].exists() and struck[1].exists() and one.snapshot.exists())
        stack.restart("ray")
        assert printed(job, CANCEL_SECONDS) == {"error": "JobError"}
        assert task.communicate(timeout=CANCEL_SECONDS)[0].splitlines() == ["JobError"]
    with driver(stack.home, one, **own) as job:
        assert printed(job, START_SECONDS)["epochs"] == [1, 2]
    wait_for(lambda: not stack.on_ray())


@contextlib.contextmanager
def plain_task(home: Path, struck: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A driver whose task outside Ray Train never ends; it is killed at the end of the block."""
    command = [sys.executable, "-c", PLAIN_TASK, str(struck)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(home, **more), cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


@fault(
    None,
    "an agent of Ray killed, which takes the raylet of `up`'s Ray along, but not its head",
    "`status` says silent, `autosparse up` starts Ray again at the same address",
)
def test_a_ray_without_its_raylet(stack: Stack) -> None:
    (agent,) = [process for process in stack.processes() if title_of(process).startswith("ray::RuntimeEnvAgent")]
    agent.kill()
    wait_for(lambda: "silent" in cli(stack.home, "status", COLUMNS="200").stdout)
    raised = cli(stack.home, "up", timeout=180)
    assert raised.returncode == 0, raised.stderr
    assert services.read_state(stack.settings).addresses == stack.services.addresses
    assert cli(stack.home, "status", COLUMNS="200").stdout.count("answering") == 4
