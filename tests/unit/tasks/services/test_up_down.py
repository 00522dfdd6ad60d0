"""Commands of the services, their processes, and what `up` writes down."""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from autosparse.models.errors import ServiceError, SpecError
from autosparse.tasks import settings
from autosparse.tasks.services import commands as service_commands
from autosparse.tasks.services import processes as service_processes
from autosparse.tasks.services import up_down as services
from autosparse.tasks.services.commands import Launch
from autosparse.tasks.services.processes import ServiceProcess

PORTS = {"prefect": 1, "mlflow": 2, "ray": 3, "ray-dashboard": 4, "ray-client": 5, "ray-agent": 6, "worker": 7}
DEADLINE = 10


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., ServiceProcess]]:
    """Starts shell commands as services and stops whatever is left of them."""
    found: list[ServiceProcess] = []

    def start(script: str, *, name: str = "one", **environment: str) -> ServiceProcess:
        launch = Launch(name=name, command=("/bin/sh", "-c", script), address="nowhere", health=("http://127.0.0.1:9/",))
        found.append(service_processes.start(launch, environment={**os.environ, **environment}, folder=tmp_path))
        return found[-1]

    yield start
    service_processes.stop(found, 0)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(service: ServiceProcess) -> int:
    return len(service_processes.processes([service]))


def launches(tmp_path: Path) -> list[Launch]:
    return [
        service_commands.prefect_server(PORTS),
        service_commands.mlflow_server(PORTS, database="postgresql://me:secret@db/mlflow", artifacts=tmp_path / "artifacts"),
        service_commands.ray_head(PORTS, folder=str(tmp_path), token=tmp_path / "token"),
        service_commands.prefect_worker(PORTS, api="http://127.0.0.1:1/api", environment={"RAY_AUTH_MODE": "token"}),
    ]


def test_every_command_is_a_program_of_this_environment(tmp_path: Path) -> None:
    for launch in launches(tmp_path):
        assert Path(launch.command[0]).parent == Path(sys.executable).parent
        assert os.access(launch.command[0], os.X_OK)


def test_no_command_listens_elsewhere_or_shows_a_password(tmp_path: Path) -> None:
    for launch in launches(tmp_path):
        shown = " ".join((*launch.command, launch.address, launch.page or "", *launch.health))
        assert "127.0.0.1" in shown
        assert "0.0.0.0" not in shown
        assert "secret" not in shown


def test_a_database_that_mlflow_does_not_know_is_refused_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(
        SpecError, match=r"^AUTOSPARSE_MLFLOW_DB: 'oracle://\*\*\*@db/x' is not allowed; allowed: a SQLAlchemy URL of sqlite"
    ):
        service_commands.mlflow_server(PORTS, database="oracle://me:secret@db/x", artifacts=tmp_path)


@pytest.mark.parametrize(("address", "fits"), [("http://10.0.0.1:4200/api", True), ("10.0.0.1:6379", True), ("http://110.0.0.1:1", False)])
def test_servers_that_run_elsewhere_are_not_exposed(address: str, fits: bool) -> None:
    process = ServiceProcess(name="ray", address=address, page=None, health=(), pid=1, mark="m", log="l")
    state = services.ServicesState(processes={"ray": process})
    services._check_same_address(state, None)
    with (
        contextlib.nullcontext()
        if fits
        else pytest.raises(ServiceError, match="^ray: runs at .*, not at 10.0.0.1; `autosparse down` first$")
    ):
        services._check_same_address(state, "10.0.0.1")


def test_an_exposed_mlflow_asks_for_a_password_that_its_command_line_does_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a long secret")
    users = tmp_path / "users.ini"
    launch = service_commands.mlflow_server(PORTS, database="sqlite:///x", artifacts=tmp_path, host="fd00::2", users=users)
    assert launch.address == "http://[fd00::2]:2"
    assert "basic-auth" in launch.command and "a long secret" not in " ".join(launch.command)
    assert launch.environment["MLFLOW_AUTH_ADMIN_PASSWORD"] == "a long secret"
    assert launch.environment["MLFLOW_AUTH_CONFIG_PATH"] == str(users)


def test_ray_keeps_loopback_and_asks_for_a_token(tmp_path: Path) -> None:
    environment = service_commands.ray_head(PORTS, folder=str(tmp_path), token=tmp_path / "token").environment
    assert environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == environment["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] == "0"
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN_PATH"] == str(tmp_path / "token")


def test_the_worker_hands_on_what_flows_need(tmp_path: Path) -> None:
    worker = service_commands.prefect_worker(PORTS, api="http://127.0.0.1:1/api", environment={"RAY_AUTH_MODE": "token"})
    assert worker.environment["RAY_AUTH_MODE"] == "token"
    assert worker.environment["PREFECT_API_URL"] == worker.address == "http://127.0.0.1:1/api"


def test_services_get_absolute_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOSPARSE_STORAGE", "here")
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "1")
    environment = services._environment(settings.load())
    assert environment["AUTOSPARSE_STORAGE"] == str(tmp_path / "here")
    assert environment["AUTOSPARSE_HOME"] == str(tmp_path / "home")
    assert environment["PREFECT_CLIENT_MAX_RETRIES"] == "1"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_port_in_use_or_taken_is_passed_over() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        found = service_processes.free_port(port)
        assert found > port
        assert service_processes.free_port(port, taken=[found]) > found


def test_a_restarted_server_has_the_port_that_it_had_before() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port}/api"):
        former = services._port(ServiceProcess(name="mlflow", address=address, page=None, health=(), pid=0, mark="", log=""))
        assert services._free_ports(["mlflow"], former={"mlflow": former}) == {"mlflow": port}


def test_a_port_is_waited_for_until_nobody_listens_there_any_more() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        start = time.monotonic()
        service_processes.await_free(port, seconds=0.3)
        assert time.monotonic() - start >= 0.3
        closing = threading.Timer(0.3, listener.close)
        closing.start()
        service_processes.await_free(port, seconds=DEADLINE)
        assert service_processes.free_port(port) == port
        closing.join()


def test_ports_of_one_call_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "PORTS", dict.fromkeys(PORTS, 40000))
    ports = services._free_ports(["ray", "worker"])
    assert sorted(ports) == ["ray", "ray-agent", "ray-client", "ray-dashboard", "worker"]
    assert len(set(ports.values())) == 5


@pytest.mark.parametrize(
    ("content", "line"), [("a\nb\n\n", "b"), ("", "empty log"), ("x" * 9000 + "\nend", "end"), ("no a://me:pw@db/x", "no a://***@db/x")]
)
def test_last_line(tmp_path: Path, content: str, line: str) -> None:
    (tmp_path / "log").write_text(content)
    assert service_processes.last_line(tmp_path / "log") == line
    assert service_processes.last_line(tmp_path / "none") == "empty log"


def test_a_process_runs_in_its_own_session_and_folder_and_logs(started: Callable[..., ServiceProcess], tmp_path: Path) -> None:
    service = started("pwd; echo $WORD >&2; exec sleep 60", WORD="hello")
    wait_for(lambda: Path(service.log).read_text().endswith("hello\n"))
    assert Path(service.log).read_text() == f"{tmp_path}\nhello\n"
    assert stat.S_IMODE(os.stat(service.log).st_mode) == 0o600
    assert os.getsid(service.pid) == os.getpgid(service.pid) == service.pid != os.getsid(0)
    assert service_processes.is_running(service)


def test_the_last_words_of_a_service_that_died_are_kept(started: Callable[..., ServiceProcess], tmp_path: Path) -> None:
    for words in ("first", "second", "third"):
        service = started(f"echo {words}")
        wait_for(lambda log=Path(service.log), said=words: log.read_text() == f"{said}\n")
    assert (tmp_path / "logs" / "one.log.1").read_text() == "second\n"
    assert stat.S_IMODE((tmp_path / "logs" / "one.log").stat().st_mode) == 0o600


def test_stop_ends_children_that_left_the_session_and_lost_their_parent(started: Callable[..., ServiceProcess]) -> None:
    nested = f'{sys.executable} -c \'import os; os.setsid(); os.execlp("sleep", "sleep", "60")\' &'
    service = started(f"{nested} sleep 60 & wait")
    wait_for(lambda: alive(service) == 3)
    os.kill(service.pid, signal.SIGKILL)
    wait_for(lambda: not service_processes.is_running(service))
    assert alive(service) == 2
    service_processes.stop([service])
    assert alive(service) == 0


def test_stop_kills_what_ignores_the_request(started: Callable[..., ServiceProcess]) -> None:
    service = started("trap '' TERM; echo ready; while :; do sleep 60; done")
    wait_for(lambda: "ready" in Path(service.log).read_text())
    service_processes.stop([service], 0.2)
    assert alive(service) == 0


def test_an_interrupt_works_even_below_a_background_job(started: Callable[..., ServiceProcess]) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        service = started("exec sleep 60")
    finally:
        signal.signal(signal.SIGINT, before)
    wait_for(lambda: psutil.Process(service.pid).name() == "sleep")
    os.kill(service.pid, signal.SIGINT)
    wait_for(lambda: alive(service) == 0)


def test_a_foreign_process_with_the_same_id_is_left_alone() -> None:
    with subprocess.Popen(["sleep", "60"]) as foreign:
        service = ServiceProcess(name="x", address="", page=None, health=(), pid=foreign.pid, mark="of an earlier one", log="")
        assert not service_processes.is_running(service)
        service_processes.stop([service])
        assert foreign.poll() is None
        foreign.kill()


def test_a_service_that_ends_while_starting_is_named_with_its_log(started: Callable[..., ServiceProcess]) -> None:
    service = started("echo no such database; exit 3", name="mlflow")
    with pytest.raises(ServiceError) as caught:
        service_processes.await_answering([service])
    assert str(caught.value) == f"mlflow: ended while starting (no such database); its log: {service.log}"


def test_a_service_that_stays_silent_is_named_after_the_deadline(started: Callable[..., ServiceProcess]) -> None:
    service = started("echo still busy; exec sleep 60", name="ray")
    wait_for(lambda: Path(service.log).read_text())
    with pytest.raises(ServiceError, match=r"^ray: did not answer within 0 s \(still busy\); its log: "):
        service_processes.await_answering([service], 0.2)


def test_state_is_private_and_read_by_the_settings(tmp_path: Path) -> None:
    here = replace(settings.load(), home=tmp_path / "home")
    here.home.mkdir()
    process = ServiceProcess(name="ray", address="127.0.0.1:6400", page=None, health=("http://a",), pid=1, mark="m", log="l")
    state = services.ServicesState(environment={"RAY_AUTH_MODE": "token"}, processes={"ray": process})
    services._write_state(here, state)
    assert stat.S_IMODE(here.services_file.stat().st_mode) == 0o600
    assert services.read_state(here) == state
    assert settings.load().ray_address == "127.0.0.1:6400"
    assert settings.load().environment == {"RAY_AUTH_MODE": "token"}
    services._write_state(here, replace(state, processes={}))
    assert not here.services_file.exists()


@pytest.mark.parametrize("content", ["", "{", "{}", '{"processes": {"ray": {}}}', json.dumps([1])])
def test_a_damaged_state_is_named(content: str) -> None:
    here = settings.load()
    here.home.mkdir()
    here.services_file.write_text(content)
    with pytest.raises(ServiceError, match="services.json is damaged"):
        services.down(here)
    assert here.services_file.read_text() == content


def test_down_without_up_makes_nothing() -> None:
    here = settings.load()
    assert services.down(here) == []
    assert not here.home.exists()
    assert [one.state for one in services.status(here)] == ["stopped"] * 4


@pytest.mark.parametrize(("name", "variable"), [("prefect", "PREFECT_API_URL"), ("mlflow", "MLFLOW_TRACKING_URI")])
def test_a_named_server_that_is_silent_ends_up_before_it_begins(monkeypatch: pytest.MonkeyPatch, name: str, variable: str) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9/api")
    monkeypatch.setattr(services, "REACHABLE_SECONDS", 0.2)
    here = settings.load()
    with pytest.raises(ServiceError, match=rf"^{name}: http://127.0.0.1:9/api \({variable}\) did not answer for 0 s \(.*refused\)$"):
        services.up(here)
    assert not here.services_file.exists()
    assert not (here.home / "logs").exists()
    assert [(one.state, one.address) for one in services.status(here) if one.name == name] == [("silent", "http://127.0.0.1:9/api")]


def test_the_password_of_a_database_elsewhere_is_shown_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@host/mlflow")
    [shown] = [one for one in services.status(settings.load()) if one.name == "mlflow"]
    assert shown.address == "postgresql://***@host/mlflow"
