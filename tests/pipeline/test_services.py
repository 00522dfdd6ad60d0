"""`up`, `down` and `status` with real servers: one start for the whole file, in the order of the tests."""

import json
import os
import re
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.tracking import MlflowClient
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import TaskRunSort
from prefect.settings import PREFECT_API_URL, temporary_settings

from autosparse.flows.recipes import smoke
from autosparse.models.errors import ServiceError
from autosparse.models.specs.fields import fingerprint, override, to_plain
from autosparse.storage.open_store import open_store
from autosparse.tasks import settings
from autosparse.tasks.results.run_view import view_run
from autosparse.tasks.services import commands as service_commands
from autosparse.tasks.services import processes as service_processes
from autosparse.tasks.services import up_down as services
from autosparse.tasks.services.up_down import ServicesState
from autosparse.tasks.settings import Settings
from tests.pipeline.command_line import cli, title_of, wait_for

pytestmark = [pytest.mark.services, pytest.mark.timeout(500)]
WATCH_SECONDS = 450
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
CLEARED = ("AUTOSPARSE_STORAGE", "AUTOSPARSE_RAY_ADDRESS", "AUTOSPARSE_MLFLOW_DB", "MLFLOW_TRACKING_URI", "PREFECT_API_URL")


@dataclass
class Running:
    """What the first `up` made, and a process of somebody else."""

    settings: Settings
    state: ServicesState
    foreign: subprocess.Popen[bytes]

    def pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in services.read_state(self.settings).processes.items()}

    @contextmanager
    def client(self) -> Iterator[SyncPrefectClient]:
        """Asks the Prefect server without a process of its own."""
        with temporary_settings({PREFECT_API_URL: self.state.addresses["prefect"]}), get_client(sync_client=True) as client:
            yield client

    def prefect(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PREFECT_API_URL": self.state.addresses["prefect"],
            "PREFECT_HOME": str(self.settings.home / "prefect"),
        }
        command = [service_commands.program("prefect"), "--no-prompt", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WATCH_SECONDS, cwd=self.settings.home)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("services")
    with pytest.MonkeyPatch.context() as patch, subprocess.Popen(["sleep", "1000"], start_new_session=True) as foreign:
        for name in CLEARED:
            patch.delenv(name, raising=False)
        patch.setenv("AUTOSPARSE_HOME", str(home))
        patch.setenv("PREFECT_HOME", str(home / "prefect"))
        here = settings.load()
        try:
            yield Running(here, services.up(here), foreign)
        finally:
            services.down(here)
            foreign.kill()


@pytest.fixture(autouse=True)
def prefect_home(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(running.settings.home / "prefect"))


def test_everything_answers_where_the_settings_look_for_it(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOSPARSE_HOME", str(running.settings.home))
    found = settings.load()
    assert (found.prefect_api_url, found.mlflow_uri, found.ray_address) == tuple(
        running.state.addresses[name] for name in ("prefect", "mlflow", "ray")
    )
    shown = services.status(running.settings)
    assert [(one.name, one.state) for one in shown] == [(name, "answering") for name in ("prefect", "mlflow", "ray", "worker")]
    assert {one.name: one.pid for one in shown} == running.pids()
    for one in shown:
        if one.page:
            with urllib.request.urlopen(one.page, timeout=10) as page:
                assert page.status == 200


def test_all_sockets_are_on_loopback(running: Running) -> None:
    listening = {
        (connection.laddr.ip, process.name())
        for process in service_processes.processes(running.state.processes.values())
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert len(listening) >= 4
    assert {ip for ip, _ in listening} <= LOOPBACK, listening


def test_a_plan_is_timed_on_the_ray_of_the_settings(running: Running) -> None:
    done = cli(running.settings.home, "plan", "--recipe", "smoke", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    found, name = json.loads(done.stdout), f"the Ray at {running.state.addresses['ray']}"
    assert found["place"]["name"] == name and found["known_from"] == [f"ten steps of each training on {name}"]
    assert found["seconds"] > 0 and found["examples"] == 5 * 512 and not (running.settings.home / "storage" / "runs").exists()


def test_ray_serves_its_owner_only(running: Running) -> None:
    address = running.state.addresses["ray"]
    script = f"import ray; ray.init('{address}', log_to_driver=False); print(ray.get(ray.remote(lambda: 7).remote()))"
    command = [service_commands.program("python"), "-c", script]
    ours = {**os.environ, **running.state.environment}
    assert subprocess.run(command, env=ours, capture_output=True, text=True, timeout=60).stdout.strip() == "7"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{running.state.processes['ray'].page}/api/jobs/", timeout=10)
    assert refused.value.code == 401
    refused.value.close()


def test_prefect_turns_away_pages_from_elsewhere(running: Running) -> None:
    request = urllib.request.Request(f"{running.state.addresses['prefect']}/flows/filter", data=b"{}", method="POST")
    request.add_header("Content-Type", "application/json")
    request.add_header("Origin", "http://elsewhere.example")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    assert refused.value.code == 403
    assert refused.value.headers["access-control-allow-origin"] is None
    refused.value.close()


def test_again_changes_nothing(running: Running) -> None:
    before = running.pids()
    assert services.up(running.settings) == running.state
    assert running.pids() == before


def test_pool_deployment_and_automation_are_there_once(running: Running) -> None:
    with running.client() as client:
        [deployment] = client.read_deployments()
        [automation] = client.read_automations_by_name("Crash zombie flows")
        pool = client.read_work_pool("autosparse")
    assert (deployment.name, deployment.entrypoint, deployment.pull_steps) == ("irp", "autosparse.flows.autosparse_pipeline.autosparse", [])
    assert (automation.enabled, automation.trigger.within) == (True, timedelta(seconds=540))  # type: ignore[union-attr]
    assert (pool.type, pool.status) == ("process", "READY")


def test_a_typo_in_a_parameter_is_refused_at_submit_time(running: Running) -> None:
    refused = running.prefect("deployment", "run", "autosparse/irp", "-p", "recipe=smok")
    assert refused.returncode != 0
    assert "'smok' is not valid under any of the given schemas" in refused.stdout + refused.stderr
    with running.client() as client:
        assert client.read_flow_runs() == []


def first_run(running: Running) -> Path:
    """The folder of a run called first, every step once: a recipe, a part of a spec, and changes on top."""
    folder = running.settings.home / "storage" / "runs" / "first"
    if not folder.exists():
        changes = json.dumps(["fanout.methods=[snip]", "fanout.dense=false"])
        parameters = ("-p", "recipe=smoke", "-p", 'spec={"irp": {"rounds": 1}}', "-p", f"set={changes}", "-p", "name=first")
        done = running.prefect("deployment", "run", "autosparse/irp", *parameters, "--watch")
        assert done.returncode == 0, done.stdout + Path(running.state.processes["worker"].log).read_text()
        assert "Completed" in done.stdout.splitlines()[-1]
    return folder


def test_a_deployment_run_ends_completed(running: Running) -> None:
    asked = override(smoke(), {"irp.rounds": 1, "fanout.methods": ["snip"], "fanout.dense": False})
    assert json.loads((first_run(running) / "spec.json").read_text())["fingerprint"] == fingerprint(asked)
    with urllib.request.urlopen(f"{running.state.addresses['mlflow']}/ajax-api/2.0/mlflow/registered-models/search", timeout=10) as answer:
        assert [one["name"] for one in json.load(answer)["registered_models"]] == ["autosparse-scorer"]


def test_prefect_shows_what_was_reached_what_it_was_about_and_the_picture(running: Running) -> None:
    spec = json.loads((first_run(running) / "spec.json").read_text())
    flow_run = flow_run_of(running, "first")
    assert set(flow_run.tags) == {"recipe:smoke", "network:lenet300-100", "data:digits", f"spec:{spec['fingerprint']}"}
    assert re.fullmatch(r"1 arm; best: accuracy 0\.\d+ by snip on lenet300-100 at density 0\.1, \d+\.\d s", said_of(flow_run))
    with running.client() as client:
        states = {one.name: said_of(one) for one in client.read_task_runs() if one.task_key != "autosparse"}
        artifacts = {one.key: one for one in client.read_artifacts()}
    accuracy = r"accuracy 0\.\d+ at density "
    assert re.fullmatch(accuracy + r"1, \d+\.\d s", states["round 0, density 1"]), states
    assert re.fullmatch(accuracy + r"0\.1, \d+\.\d s", states["lenet300-100 snip 0.1 seed 10"]), states
    assert re.fullmatch(r"version 1, held-out Spearman -?0\.\d+, champion, \d+\.\d s", states["register scorer"])
    text = str(artifacts["first-result"].data)
    assert text.startswith("## ") and "data:" not in text
    assert text.index("![") < text.index("| target") < text.index("[MLflow run](")
    for address in (str(artifacts["first-plot"].data), re.search(r"!\[[^]]*\]\((\S+)\)", text)[1]):  # type: ignore[index]
        with urllib.request.urlopen(address, timeout=10) as picture:
            assert picture.read(4) == b"\x89PNG"


@pytest.mark.slow
def test_a_failed_run_goes_on_when_it_is_tried_again_from_the_page(running: Running) -> None:
    folder = first_run(running)
    (folder / "summary/report.json").unlink()
    (folder / "scorer/report.json").write_bytes(b"?")
    run_again(running, "FAILED")
    reason = said_of(flow_run_of(running, "first"))
    command = re.search(r"; the same run makes it again after: autosparse (rm first --step \S+) --delete", reason)
    assert command, reason
    words = [service_commands.program("autosparse"), *command[1].split(), "--delete"]
    removed = subprocess.run(
        words, env={**os.environ, "AUTOSPARSE_HOME": str(running.settings.home)}, capture_output=True, text=True, timeout=120
    )
    assert removed.returncode == 0, removed.stderr
    before = (folder / "irp/lenet300-100-seed0/round-000/report.json").read_bytes()
    run_again(running, "COMPLETED")
    assert (folder / "irp/lenet300-100-seed0/round-000/report.json").read_bytes() == before
    with running.client() as client:
        states = {one.name: one.state_name for one in client.read_task_runs(sort=TaskRunSort.EXPECTED_START_TIME_DESC)[::-1]}
    assert (states["round 0, density 1"], states["fit scorer mlp"], states["summary"]) == ("Cached", "Completed", "Completed")


def run_again(running: Running, state: str) -> None:
    """As the button on the page does, and to the end."""
    flow_run = flow_run_of(running, "first")
    done = running.prefect("flow-run", "retry", str(flow_run.id))
    assert done.returncode == 0, done.stdout + done.stderr
    wait_for(lambda: flow_run_of(running, "first").run_count > flow_run.run_count, 200)
    wait_for(lambda: flow_run_of(running, "first").state_type == state, 200)


def said_of(one: Any) -> str:
    return one.state.message or ""


def test_a_cancelled_run_ends_its_jobs_and_says_so(running: Running) -> None:
    spec = override(smoke(), {"irp.train.epochs": 500})
    parameters = ("-p", f"spec={json.dumps(to_plain(spec))}", "-p", "name=endless", "-p", "recipe=smoke")
    started = running.prefect("deployment", "run", "autosparse/irp", *parameters)
    assert started.returncode == 0, started.stdout
    training = running.settings.home / "storage" / "runs" / "endless" / "training"
    wait_for(lambda: any(training.rglob("model.safetensors")))
    flow_run = flow_run_of(running, "endless")
    assert flow_run.state_type == "RUNNING"
    assert running.prefect("flow-run", "cancel", str(flow_run.id)).returncode == 0
    wait_for(lambda: flow_run_of(running, "endless").state_type == "CANCELLED")
    wait_for(lambda: not train_workers(running))
    client = MlflowClient(running.state.addresses["mlflow"])
    experiment = client.get_experiment_by_name("autosparse")
    assert experiment
    runs = client.search_runs([experiment.experiment_id], "tags.`autosparse.run` = 'endless'")
    assert {run.info.status for run in runs} == {"KILLED", "FINISHED"}  # its round; the data before it
    assert view_run(open_store(running.settings.storage), "endless")["rounds"] == [], "the round that was cancelled is seen"


def test_rm_takes_runs_out_of_storage_mlflow_and_prefect_but_no_champion(
    running: Running, typed: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    artifacts, home = running.settings.mlflow_artifacts, {"AUTOSPARSE_HOME": str(running.settings.home)}
    by_age = typed("rm", "--keep-days", "0", **home)
    assert "stays: first: an alias of the model registry points to its scorer" in by_age.stdout, by_age.stdout + by_age.stderr
    assert by_age.stdout.startswith("endless: ")
    before = occupied(artifacts)
    done = typed("rm", "first", "endless", "--scorers", "--delete", "--json", **home)
    assert done.returncode == 0, done.stderr
    places = {(run["name"], place["place"].split()[0]): place for run in json.loads(done.stdout)["runs"] for place in run["places"]}
    named = places["first", "MLflow"]["bytes"] + places["endless", "MLflow"]["bytes"]
    assert before - occupied(artifacts) >= 0.9 * named > 100_000
    [kept] = places["first", "MLflow"]["stays"]
    assert (
        kept == "version 1 of autosparse-scorer, and the MLflow run with its files (aliases champion, champion-digits-growth point to it)"
    )
    client = MlflowClient(running.state.addresses["mlflow"])
    [champion] = client.search_model_versions("name = 'autosparse-scorer'")
    assert champion.run_id and {file.path for file in client.list_artifacts(champion.run_id)} >= {"scorer-files"}
    experiment = client.get_experiment_by_name("autosparse")
    assert experiment and [run.info.run_id for run in client.search_runs([experiment.experiment_id])] == [champion.run_id]
    with running.client() as prefect:
        assert prefect.read_flow_runs() == [] and prefect.read_artifacts() == []
    assert not any((running.settings.home / "storage/runs").iterdir())
    again = typed("rm", "first", **home)
    assert again.returncode == 2 and "has nothing to remove" in again.stderr


def occupied(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def flow_run_of(running: Running, name: str) -> FlowRun:
    with running.client() as client:
        return next(one for one in client.read_flow_runs() if one.name == name)


def train_workers(running: Running) -> list[psutil.Process]:
    found = service_processes.processes(running.state.processes.values())
    return [process for process in found if "RayTrainWorker" in title_of(process)]


def test_only_what_died_is_started_again(running: Running) -> None:
    before = running.pids()
    os.kill(before["worker"], signal.SIGKILL)
    states = {one.name: one.state for one in services.status(running.settings)}
    assert states == {"prefect": "answering", "mlflow": "answering", "ray": "answering", "worker": "silent"}
    services.up(running.settings)
    after = running.pids()
    assert after.pop("worker") != before.pop("worker")
    assert after == before


def test_a_service_that_cannot_start_takes_back_the_others(running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PREFECT_API_URL", running.state.addresses["prefect"])
    monkeypatch.setenv("AUTOSPARSE_RAY_ADDRESS", running.state.addresses["ray"])
    monkeypatch.setenv("AUTOSPARSE_MLFLOW_DB", "mysql://me:secret@nowhere/x")
    here = settings.load()
    with pytest.raises(ServiceError, match=r"^mlflow: ended while starting \(.+\); its log: .*/logs/mlflow.log$") as caught:
        services.up(here)
    assert "secret" not in str(caught.value)
    assert not here.services_file.exists()
    marked = [process for process in psutil.process_iter() if process.is_running() and here_is_home(process, here.home)]
    assert marked == []
    assert {one.state for one in services.status(running.settings)} == {"answering"}


def test_down_ends_all_of_ours_and_nothing_else(running: Running) -> None:
    before = services.read_state(running.settings)
    os.kill(before.processes["ray"].pid, signal.SIGKILL)  # its children lose their parent
    assert sorted(services.down(running.settings)) == ["mlflow", "prefect", "ray", "worker"]
    assert service_processes.processes(before.processes.values()) == []
    assert [process for process in psutil.process_iter() if here_is_home(process, running.settings.home)] == []
    assert running.foreign.poll() is None
    assert not running.settings.services_file.exists()
    assert not Path(before.folders[0]).exists()
    assert before.folders[0].startswith(tempfile.gettempdir())
    assert services.down(running.settings) == []


def here_is_home(process: psutil.Process, home: Path) -> bool:
    try:
        return process.environ().get("AUTOSPARSE_HOME") == str(home)
    except psutil.Error:
        return False
