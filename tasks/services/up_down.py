"""The services of one machine: Prefect server and worker, MLflow server, Ray head. One `up` starts what is missing, one `down` ends it.

What was started stands in <home>/services.json, whose `addresses` and `environment` are what settings.py reads.
"""

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from filelock import FileLock, Timeout

from autosparse.models.errors import ServiceError, without_password
from autosparse.tasks.cluster.folder import new_folder
from autosparse.tasks.home import check_home, settle_user
from autosparse.tasks.limits import RUNS, limit
from autosparse.tasks.proxies import spare_local
from autosparse.tasks.server_addresses import check_mlflow_address
from autosparse.tasks.services import commands as service_commands
from autosparse.tasks.services import processes as service_processes
from autosparse.tasks.services.commands import LOOPBACK, MLFLOW, PORTS, PREFECT, RAY, WORKER, Launch
from autosparse.tasks.services.exposure import check_exposure, let_clients_in, write_users
from autosparse.tasks.services.processes import ServiceProcess
from autosparse.tasks.settings import ENVIRONMENT, STALE_RAY, Settings

NAMES = (PREFECT, MLFLOW, RAY, WORKER)
VARIABLES = {PREFECT: "PREFECT_API_URL", MLFLOW: "MLFLOW_TRACKING_URI", RAY: "AUTOSPARSE_RAY_ADDRESS"}
LOCK_SECONDS = 300
SERVERS_STOP_SECONDS = 5  # a Ray that has run a job waits for its detached actors much longer, for nothing
REACHABLE_SECONDS = 10
SILENT_SECONDS = 20  # more than a busy machine takes to answer


@dataclass(kw_only=True)
class ServicesState:
    """Addresses of the servers in use, what a process needs in its environment to use them, and the processes that were started."""

    addresses: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    processes: dict[str, ServiceProcess] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ServiceStatus:
    """One service. `state` is answering, silent or stopped; without a `pid` it was not started by `up`; `page` is for people."""

    name: str
    state: str
    address: str | None = None
    page: str | None = None
    pid: int | None = None


def up(settings: Settings, *, expose: str | None = None, tell: Callable[[str], None] = lambda _: None) -> ServicesState:
    """Start what is not running or answers no more, and wait until all of it answers; a second call changes nothing.

    A server that the environment names (PREFECT_API_URL, MLFLOW_TRACKING_URI, AUTOSPARSE_RAY_ADDRESS) is used instead of a new
    one. With `expose` the servers listen on that address of this machine instead of on loopback, each with credentials. `tell` hears of
    one that is slow to start.

    Raises SpecError, before anything is started, where those are missing, and ServiceError, after stopping what this call had
    started, when a service ends or stays silent.
    """
    if expose:
        check_exposure(expose)
    let_clients_in()
    limit(RUNS)  # a bad one is said before anything is started
    spare_local(os.environ, [expose or LOOPBACK])
    settle_user(os.environ, settings.home)
    with _locked(settings):
        state = read_state(settings)
        elsewhere, former = _elsewhere(state), {}
        for name, process in tuple(state.processes.items()):
            if _is_lost(process):
                service_processes.stop([state.processes.pop(name)])  # what it left behind
                if name != WORKER:
                    former[name] = _port(process)  # where flows under way look for it
                    service_processes.await_free(former[name], expose or LOOPBACK)
        kept = tuple(state.processes)
        _check_same_address(state, expose)
        try:
            _start_servers(settings, state, elsewhere, expose, former)
            _start_worker(settings, state, elsewhere, tell)
            service_processes.await_answering(state.processes.values(), tell=tell)
        except BaseException:
            service_processes.stop([process for name, process in state.processes.items() if name not in kept])
            state.processes = {name: process for name, process in state.processes.items() if name in kept}
            _write_state(settings, state)
            raise
        shown = {name: without_password(address) for name, address in elsewhere.items()}
        return replace(state, addresses={**state.addresses, **shown})


def down(settings: Settings) -> list[str]:
    """Stop what `up` started and nothing else; return the names of the services that were stopped.

    Flow runs are ended first, while the servers still take their last report; then the worker, then the servers.
    """
    if not settings.services_file.exists():
        return []
    with _locked(settings):
        state = read_state(settings)
        found = [name for name, process in state.processes.items() if service_processes.processes([process])]
        worker = state.processes.pop(WORKER, None)
        if worker:
            service_processes.end(process for process in service_processes.processes([worker]) if process.pid != worker.pid)
            service_processes.stop([worker])
        service_processes.stop(tuple(state.processes.values()), SERVERS_STOP_SECONDS)
        state.processes = {}
        _write_state(settings, state)
        return found


def status(settings: Settings) -> list[ServiceStatus]:
    """The state of each service now, in a few seconds at most."""
    state = read_state(settings)
    elsewhere = {name: os.environ[variable] for name, variable in VARIABLES.items() if os.environ.get(variable)}
    return [_status(name, state.processes.get(name), elsewhere.get(name)) for name in NAMES]


def read_state(settings: Settings) -> ServicesState:
    """What services.json says; an absent file is an empty state. Raises ServiceError when the file is damaged."""
    try:
        stored = json.loads(settings.services_file.read_text())
        processes = {name: ServiceProcess(**{**row, "health": tuple(row["health"])}) for name, row in stored["processes"].items()}
        return ServicesState(**{**stored, "processes": processes})
    except FileNotFoundError:
        return ServicesState()
    except (ValueError, TypeError, KeyError) as error:
        raise ServiceError(
            f"services: {settings.services_file} is damaged ({error}); end the processes in it by hand and remove it"
        ) from error


def _write_state(settings: Settings, state: ServicesState) -> None:
    """Write services.json, or remove it with the last process."""
    servers = {name: process for name, process in state.processes.items() if name != WORKER}
    state.addresses = {name: process.address for name, process in servers.items()}
    if RAY not in servers:
        state.environment = {}
        while state.folders:
            shutil.rmtree(state.folders.pop(), ignore_errors=True)
    if state.processes:
        _write_private(settings.services_file, json.dumps(asdict(state), indent=2))
    else:
        settings.services_file.unlink(missing_ok=True)


def _is_lost(process: ServiceProcess) -> bool:
    """Whether it has ended, or is a server that stays silent: a Ray whose raylet died. A worker is silent while Prefect is away."""
    if process.name != WORKER:
        with contextlib.suppress(ServiceError):
            service_processes.await_answering([process], SILENT_SECONDS)
            return False
        return True
    return not service_processes.is_running(process)


def _check_same_address(state: ServicesState, expose: str | None) -> None:
    host = service_commands.url(expose or LOOPBACK, 0).removeprefix("http:/").removesuffix("0")  # /192.0.2.1:
    for name, process in state.processes.items():
        if expose and name != WORKER and host not in f"/{process.address}":
            raise ServiceError(f"{name}: runs at {process.address}, not at {expose}; `autosparse down` first")


def _start_servers(settings: Settings, state: ServicesState, elsewhere: dict[str, str], expose: str | None, former: dict[str, int]) -> None:
    host = expose or LOOPBACK
    missing = [name for name in (RAY, MLFLOW, PREFECT) if name not in state.processes and name not in elsewhere]
    ports = _free_ports(missing, host, former)
    if RAY in missing:  # the slowest first
        token = None if expose else settings.home / "ray-token"
        if token:
            _write_private(token, secrets.token_hex(32))
        state.folders.append(new_folder())
        state.environment = service_commands.ray_environment(token)
        _start(settings, state, service_commands.ray_head(ports, folder=state.folders[-1], token=token, host=host))
    if PREFECT in missing:
        _start(settings, state, service_commands.prefect_server(ports, host=host))
    if MLFLOW in missing:
        database = os.environ.get("AUTOSPARSE_MLFLOW_DB") or f"sqlite:///{settings.home / 'mlflow.db'}"
        users = write_users(settings.home) if expose else None
        artifacts = settings.mlflow_artifacts
        _start(settings, state, service_commands.mlflow_server(ports, database=database, artifacts=artifacts, host=host, users=users))


def _start_worker(settings: Settings, state: ServicesState, elsewhere: dict[str, str], tell: Callable[[str], None]) -> None:
    """What the Prefect server in use must hold, and the worker; nothing to do when that is there."""
    api = elsewhere.get(PREFECT) or state.processes[PREFECT].address
    if WORKER in state.processes:
        if state.processes[WORKER].address == api:
            return
        service_processes.stop([state.processes.pop(WORKER)])
    if PREFECT not in elsewhere:
        service_processes.await_answering([state.processes[PREFECT]], tell=tell)
    os.environ.setdefault("PREFECT_HOME", str(settings.home / "prefect"))
    from autosparse.tasks.services import prefect_setup  # only now: Prefect reads its settings when imported

    prefect_setup.prepare(api, environment=_environment(settings), log=settings.home / "logs" / "deploy.log")
    environment = {} if RAY in elsewhere else state.environment
    _start(settings, state, service_commands.prefect_worker(_free_ports([WORKER]), api=api, environment=environment))


def _start(settings: Settings, state: ServicesState, launch: Launch) -> None:
    state.processes[launch.name] = service_processes.start(launch, environment=_environment(settings), folder=settings.home)
    _write_state(settings, state)  # at once: whatever happens now, `down` finds it


def _environment(settings: Settings) -> dict[str, str]:
    """The caller's environment, our defaults, and absolute addresses: services run in other folders."""
    fixed = {"AUTOSPARSE_HOME": str(settings.home), "AUTOSPARSE_STORAGE": settings.storage}
    # modules called storage or tasks beside a program, or in the folder it runs in, must not stand in for ours
    safe = {"PYTHONSAFEPATH": "1", "PREFECT_HOME": str(settings.home / "prefect")}
    inherited = {name: value for name, value in os.environ.items() if name != STALE_RAY}
    return {**ENVIRONMENT, **safe, **inherited, **fixed}


def _elsewhere(state: ServicesState) -> dict[str, str]:
    """Servers that the environment names and that are not our own. Raises ServiceError when one does not answer, SpecError for none."""
    found = {}
    for name, variable in VARIABLES.items():
        address = os.environ.get(variable)
        if address and address != state.addresses.get(name):
            found[name] = address
            if name == MLFLOW:
                check_mlflow_address(address)
            _await_reachable(name, address)
    return found


def _await_reachable(name: str, address: str) -> None:
    start = time.monotonic()
    while address.startswith("http") and (reason := service_processes.why_unreachable(f"{address.rstrip('/')}/health")):
        waited = time.monotonic() - start
        if waited > REACHABLE_SECONDS:
            raise ServiceError(f"{name}: {address} ({VARIABLES[name]}) did not answer for {waited:.0f} s ({reason})")
        time.sleep(service_processes.POLL_SECONDS)


def _status(name: str, process: ServiceProcess | None, elsewhere: str | None) -> ServiceStatus:
    if process and elsewhere in (None, process.address):
        answering = service_processes.is_running(process) and service_processes.is_answering(process)
        return ServiceStatus(
            name=name, state="answering" if answering else "silent", address=process.address, page=process.page, pid=process.pid
        )
    if elsewhere:
        silent = elsewhere.startswith("http") and service_processes.why_unreachable(f"{elsewhere.rstrip('/')}/health")
        return ServiceStatus(name=name, state="silent" if silent else "answering", address=without_password(elsewhere))
    return ServiceStatus(name=name, state="stopped")


def _port(process: ServiceProcess) -> int:
    return int(process.address.rpartition(":")[2].partition("/")[0])


def _free_ports(names: list[str], host: str = LOOPBACK, former: dict[str, int] | None = None) -> dict[str, int]:
    ports: dict[str, int] = {}
    for name, preferred in {**PORTS, **(former or {})}.items():
        if name.partition("-")[0] in names:
            ports[name] = service_processes.free_port(preferred, taken=ports.values(), host=host)
    return ports


def _write_private(path: Path, text: str) -> None:
    """Replace a file at once, readable by its owner only."""
    part = path.with_name(path.name + ".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    os.replace(part, path)


@contextmanager
def _locked(settings: Settings) -> Iterator[None]:
    check_home(settings.home)
    try:
        with FileLock(settings.home / "services.lock", timeout=LOCK_SECONDS):
            yield
    except Timeout as error:
        raise ServiceError(f"services: another up or down in {settings.home} took longer than {LOCK_SECONDS} s") from error
