"""Who can reach the servers: this machine alone, or with `--expose` whoever has the credentials; and whom they call: nobody."""

import base64
import ipaddress
import os
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from autosparse.models.errors import SpecError
from autosparse.tasks import settings
from autosparse.tasks.services import processes as service_processes
from autosparse.tasks.services import up_down as services
from autosparse.tasks.services.exposure import check_exposure
from autosparse.tasks.services.up_down import ServicesState
from autosparse.tasks.settings import ENVIRONMENT
from tests.faults.matrix import fault
from tests.faults.runs import holding, read_until, running
from tests.pipeline.command_line import ROOT

LOGIN, TOKEN = "somebody:plantedPREFECTPASSWORD", "plantedRAYTOKEN0123456789abcdef0123"
NAME, PASSWORD = "somebody", "plantedMLFLOWPASSWORD"
GIVEN = {
    "PREFECT_SERVER_API_AUTH_STRING": LOGIN,
    "MLFLOW_TRACKING_USERNAME": NAME,
    "MLFLOW_TRACKING_PASSWORD": PASSWORD,
    "RAY_AUTH_TOKEN": TOKEN,
}
SILENT = ("MLFLOW_DISABLE_TELEMETRY", "PREFECT_SERVER_ANALYTICS_ENABLED", "RAY_USAGE_STATS_ENABLED", "DO_NOT_TRACK")
MORE = ("PREFECT_API_AUTH_STRING", "PREFECT_HOME", "AUTOSPARSE_MLFLOW_DB", "AUTOSPARSE_STORAGE", *SILENT)


def outer_address() -> str:
    """An IPv4 address of this machine that others see; one more of loopback where it has none."""
    found = [one.address for addresses in psutil.net_if_addrs().values() for one in addresses if one.family.name == "AF_INET"]
    return next((address for address in found if not ipaddress.ip_address(address).is_loopback), "127.0.0.2")


def listening(processes: list[psutil.Process]) -> set[tuple[str, str]]:
    """(address, program) of every socket on which these processes wait for others."""
    found = set()
    for process in processes:
        with suppress(psutil.Error):
            sockets = process.net_connections("inet")
            found |= {(one.laddr.ip, " ".join(process.cmdline()[:4])) for one in sockets if one.status == psutil.CONN_LISTEN}
    return found


@contextmanager
def watched(pid: int) -> Iterator[set[tuple[str, str]]]:
    """What a process and its children listen on in the time of this block, also where it is gone at its end."""
    found: set[tuple[str, str]] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            found.update(listening([psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


def on_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback


def telling(processes: list[psutil.Process]) -> list[str]:
    """Processes whose environment does not switch off what the three libraries send home."""
    found = []
    for process in processes:
        with suppress(psutil.Error):
            environment = process.environ()
            if environment and {name: environment.get(name) for name in SILENT} != {name: ENVIRONMENT[name] for name in SILENT}:
                found.append(" ".join(process.cmdline()))
    return found


@contextmanager
def started(home: Path, **given: str) -> Iterator[ServicesState]:
    """`up` in a home of its own, with nothing but these settings; `down` in the end."""
    expose = given.pop("expose", None)
    with pytest.MonkeyPatch.context() as patch:
        for name in (*VARIABLES, *MORE, *GIVEN):
            patch.setenv(name, "")  # so that whatever is set meanwhile is gone afterwards
            patch.delenv(name)
        for name, value in {"AUTOSPARSE_HOME": str(home), "PYTHONPATH": os.pathsep.join((str(ROOT), *sys.path)), **given}.items():
            patch.setenv(name, value)
        here = settings.load()
        try:
            yield services.up(here, expose=expose)
        finally:
            services.down(here)


VARIABLES = tuple(services.VARIABLES.values())


@fault(29, "`up --expose` without credentials", "refused in one line that names all of them; nothing started")
def test_nothing_is_exposed_without_credentials(tmp_path: Path, typed: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = typed("up", "--expose", outer_address(), AUTOSPARSE_HOME=str(tmp_path))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert all(name in done.stderr for name in GIVEN), done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", GIVEN)
@fault(29, "`up --expose` with all credentials but one", "refused, that one named")
def test_each_server_needs_its_credentials(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("autosparse.tasks.services.exposure.find_spec", lambda name: True)
    check_exposure(outer_address())
    monkeypatch.setenv(missing, "short" if "PASSWORD" in missing else "")
    with pytest.raises(SpecError) as refused:
        check_exposure(outer_address())
    assert [name for name in GIVEN if name in str(refused.value)] == [missing]
    assert not any(secret in str(refused.value) for secret in (LOGIN, PASSWORD, TOKEN))


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.99", "localhost", "", "host.example"])
@fault(29, "`up --expose` on all addresses, or on one that is not this machine's", "refused")
def test_one_address_of_this_machine_is_exposed(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SpecError, match="^--expose: "):
        check_exposure(address)


PLANTED = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDPLANTED01",
    "AWS_SECRET_ACCESS_KEY": "plantedplantedSECRETKEY02",
    "AWS_SESSION_TOKEN": "plantedSESSIONTOKEN03",
    "AUTOSPARSE_MLFLOW_DB": "postgresql://me:plantedDBPASSWORD04@nowhere/mlflow",
    "MLFLOW_TRACKING_PASSWORD": "plantedMLFLOWPASSWORD06",
    "PREFECT_API_AUTH_STRING": "me:plantedPREFECTPASSWORD07",
    "AWS_ENDPOINT_URL": "http://me:plantedENDPOINTPASSWORD08@127.0.0.1:9",
}


NAMED = {"MLFLOW_TRACKING_USERNAME": "somebody"}  # no secret: MLflow writes down who made a run


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.timeout(900)
@fault(28, "keys and passwords in the environment of a whole run", "in no report, record, database, log, artifact or line of output")
@fault(29, "`autosparse run` with embedded services", "every listening socket on loopback, telemetry off in every process")
def test_an_embedded_run_listens_on_loopback_and_writes_no_secret_down(tmp_path: Path) -> None:
    words = [value.rpartition("me:")[2].partition("@")[0] for value in PLANTED.values()]
    home = tmp_path / "home"
    # a short folder: paths of Ray's sockets have 107 bytes
    with tempfile.TemporaryDirectory() as sessions, running(home, TMPDIR=sessions, **PLANTED, **NAMED) as process:
        with watched(process.pid) as found:
            lines = read_until(process, "[done]", "round 0")
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert len(found) >= 4, "Prefect, Ray's head, its dashboard and a worker at least"
        assert any("RayTrainWorker" in program for _, program in found), "where the ranks of a round meet"
        assert {one for one in found if not on_loopback(one[0])} == set()
        assert telling(family[1:]) == []
        assert holding(Path(sessions), words) == []  # Ray's logs, which go with the run
        assert process.stdout
        lines += process.stdout.readlines()
        assert process.wait(60) == 0, "".join(lines[-30:])
    assert not [word for word in words if word in "".join(lines)]
    assert holding(home, words) == []


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.timeout(600)
@fault(29, "`autosparse up`", "every listening socket of all its processes on loopback, telemetry off in all of them")
def test_up_listens_on_loopback_only(tmp_path: Path) -> None:
    with started(tmp_path) as state:
        family = service_processes.processes(state.processes.values())
        found = listening(family)
        assert len(found) >= 4
        assert {one for one in found if not on_loopback(one[0])} == set()
        assert telling(family) == []


def answer(url: str, **headers: str) -> int:
    """The status that a server answers with."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as found:
            return found.status
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code


def basic(login: str) -> str:
    return f"Basic {base64.b64encode(login.encode()).decode()}"


CLIENT = """
import mlflow
from mlflow.tracking import MlflowClient
client = MlflowClient()
run = client.create_run(client.create_experiment("one"))
client.log_text(run.info.run_id, "content", "a.txt")
print(mlflow.artifacts.load_text(run.info.artifact_uri + "/a.txt"))
"""


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.timeout(600)
@fault(28, "credentials of exposed servers", "in no file: services.json, logs, databases")
@fault(29, "`up --expose ADDRESS` with credentials", "401 without them and 200 with them at every server")
def test_exposed_servers_ask_for_credentials(tmp_path: Path) -> None:
    address = outer_address()
    with started(tmp_path, expose=address, **GIVEN) as state:
        pages = {name: state.processes[name].page or "" for name in ("prefect", "mlflow", "ray")}
        assert all(address in page for page in pages.values())
        flows, experiments = f"{pages['prefect']}/api/admin/version", f"{pages['mlflow']}/api/2.0/mlflow/experiments/get?experiment_id=0"
        jobs = f"{pages['ray']}/api/jobs/"
        for url, right, wrong in (
            (flows, basic(LOGIN), basic("somebody:else")),
            (experiments, basic(f"{NAME}:{PASSWORD}"), basic(f"{NAME}:else")),
            (jobs, f"Bearer {TOKEN}", f"Bearer {TOKEN[::-1]}"),
        ):
            assert answer(url) in (401, 403), url
            assert answer(url, Authorization=wrong) in (401, 403), url
            assert answer(url, Authorization=right) == 200, url
        assert answer(experiments, Authorization=basic(f"{NAME}:{PASSWORD}"), Host="elsewhere.example") == 403
        assert [one.state for one in services.status(settings.load())] == ["answering"] * 4
        done = subprocess.run(
            [sys.executable, "-c", CLIENT],
            env={**os.environ, "MLFLOW_TRACKING_URI": pages["mlflow"]}, cwd=tmp_path, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.stdout.strip().endswith("content"), done.stderr[-2000:]
        worker = service_processes.processes([state.processes["worker"]])
        assert all(on_loopback(one[0]) for one in listening(worker))
    assert holding(tmp_path, [LOGIN.partition(":")[2], PASSWORD, TOKEN]) == []
