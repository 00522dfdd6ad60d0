"""Several runs at once, and many arms in one."""

import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from mlflow.tracking import MlflowClient

from autosparse.storage.open_store import open_store
from autosparse.tasks import settings
from autosparse.tasks.engine.lock import sole
from autosparse.tasks.results.run_view import last_runs, view_run
from autosparse.tasks.services import commands as service_commands
from autosparse.tasks.services import processes as service_processes
from tests.faults.matrix import fault
from tests.faults.runs import mlflow_states, read_until, result, running, versions
from tests.faults.servers import PORTS_FROM, prefect_server
from tests.pipeline.command_line import cli, environment
from tests.s3_server import BUCKET, KEY, SECRET, s3_server

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(900)]
TINY = ("run", "--recipe", "smoke", "--set", "irp.rounds=1")
ONE_ARM = (*TINY, "--set", 'fanout.methods=["scorer"]', "--set", "fanout.dense=false")
ARMS = 200
GROWTH_BYTES = 200 * 2**20  # 118 MB with 20 arms (what the first ones import), 124 MB with 200
EARLY_ARMS = 20
LATE_GROWTH_BYTES = 32 * 2**20  # of all arms after the early ones together
ANSWER_SECONDS = 1.0
BURNERS = 2
HOLD = """
import time
from autosparse.tasks import settings
from autosparse.tasks.engine.lock import sole
with sole(settings.load(), "a", print):
    print("held", flush=True)
    time.sleep(60)
"""


def rest_of(process: subprocess.Popen[str]) -> str:
    """What it still prints; fails unless it ends well."""
    assert process.stdout
    printed = process.stdout.read()
    assert process.wait(60) == 0, printed[-3000:]
    return printed


@fault(16, "one spec started twice at the same moment", "one works, the other waits and finds everything Cached; one set of everything")
def test_two_starts_of_one_spec(tmp_path: Path) -> None:
    arguments = (*ONE_ARM, "--name", "one")
    with running(tmp_path, arguments=arguments) as first, running(tmp_path, arguments=arguments) as second:
        printed = {rest_of(first), rest_of(second)}
    worked, waited = sorted(printed, key=lambda text: "waiting: run one is at work in process" in text)
    assert "waiting:" not in worked and "[done]" in worked
    assert "waiting:" in waited and "[cached]" in waited and "[done]" not in waited
    (name,) = {key.split("/")[1] for key in open_store(str(tmp_path / "storage")).list("runs")}
    assert name == "one"
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("autosparse")
    assert experiment
    runs = Counter(run.info.run_name for run in client.search_runs([experiment.experiment_id]))
    assert set(runs.values()) == {1}, runs
    assert set(mlflow_states(tmp_path).values()) == {"FINISHED"}
    assert versions(tmp_path) == ["1"]


@fault(None, "four different runs at once on two cores", "all finish")
def test_four_runs_at_once(tmp_path: Path) -> None:
    names = [f"seed{number}" for number in range(4)]
    started = [running(tmp_path, arguments=(*ONE_ARM, "--name", name, "--set", f"irp.seeds=[{name[-1]}]")) for name in names]
    with started[0] as a, started[1] as b, started[2] as c, started[3] as d:
        for process in (a, b, c, d):
            rest_of(process)
    store = open_store(str(tmp_path / "storage"))
    assert sorted(last_runs(store)) == names
    assert all(view_run(store, name)["summary"] for name in names)
    assert set(mlflow_states(tmp_path).values()) == {"FINISHED"}


@fault(
    None,
    "200 arms queued on two slots",
    "memory of the flow process stays within 200 MB of what it was before the first and 32 MB of what it was after the twentieth, "
    "Prefect answers within a second",
    simulated="arms with an empty layer, which are not trained",
)
def test_many_arms(tmp_path: Path) -> None:
    densities = [round(1e-6 + 1e-8 * number, 8) for number in range(ARMS)]
    changes = ("--set", 'fanout.methods=["random"]', "--set", f"fanout.densities={densities}", "--set", "fanout.dense=false")
    changes += ("--set", "fanout.min_per_layer=0")  # so that layers may be empty
    with prefect_server(tmp_path) as server:
        health = server.launch.health[0].removesuffix("health") + "admin/version"
        with running(tmp_path, *changes, arguments=(*TINY, "--name", "many"), PREFECT_API_URL=server.address) as process:
            read_until(process, "[ .. ]", "score")
            flow = psutil.Process(process.pid)
            before, memory, answers = flow.memory_info().rss, [], []
            assert process.stdout
            for line in process.stdout:
                if "[done]" in line and "random" in line and len(memory) < ARMS:
                    memory.append(flow.memory_info().rss)
                    if len(memory) % 5 == 0:
                        start = time.monotonic()
                        with urllib.request.urlopen(health, timeout=30) as page:
                            page.read()
                        answers.append(time.monotonic() - start)
            assert process.wait(60) == 0
    assert len(memory) == ARMS
    growth, late = max(memory) - before, max(memory) - memory[EARLY_ARMS - 1]
    figures = f"{growth / 2**20:.1f} MB, {late / 2**20:.1f} MB late, {statistics.median(answers):.2f} s, {max(answers):.2f} s"
    assert growth < GROWTH_BYTES and late < LATE_GROWTH_BYTES, figures
    assert statistics.median(answers) < ANSWER_SECONDS, figures
    print(figures)  # noqa: T201


@contextmanager
def shared_ray(home: Path) -> Iterator[dict[str, str]]:
    """The Ray of two users: what each has in the environment."""
    home.mkdir()
    folder, token = tempfile.mkdtemp(prefix="autosparse-"), home / "token"
    token.write_text("0123456789abcdef" * 4)
    ports = {name: service_processes.free_port(PORTS_FROM + 40 + 5 * number) for number, name in enumerate(service_commands.PORTS)}
    launch = service_commands.ray_head(ports, folder=folder, token=token)
    process = service_processes.start(launch, environment={**environment(home), **settings.ENVIRONMENT}, folder=home)
    try:
        service_processes.await_answering([process], 240)
        yield {"AUTOSPARSE_RAY_ADDRESS": launch.address, **service_commands.ray_environment(token)}
    finally:
        service_processes.stop([process])
        shutil.rmtree(folder, ignore_errors=True)


@fault(
    None,
    "four runs of two users at once on one Ray, on two cores that are busy already; one is cancelled",
    "the others end, with the bits that they have alone; the cancelled one goes on to the same bits",
)
@pytest.mark.timeout(1800)
def test_two_users_share_a_busy_machine(tmp_path: Path) -> None:
    def arguments(seed: int) -> tuple[str, ...]:
        return (*ONE_ARM, "--name", f"seed{seed}", "--set", f"irp.seeds=[{seed}]")

    alone = cli(tmp_path / "alone", *arguments(0), timeout=600)
    assert alone.returncode == 0, alone.stderr[-3000:]
    users = [tmp_path / "anna", tmp_path / "ben"]
    with ExitStack() as stack:
        there = stack.enter_context(shared_ray(tmp_path / "ray"))
        for _ in range(BURNERS):
            burner = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(burner.kill)
        runs = {
            (user.name, seed): stack.enter_context(running(user, arguments=arguments(seed), **there)) for user in users for seed in (0, 1)
        }
        cancelled = runs.pop(("ben", 1))
        read_until(cancelled, "[done]", "round")
        cancelled.send_signal(signal.SIGINT)
        assert cancelled.wait(180) == 130
        for process in runs.values():
            rest_of(process)
        again = cli(users[1], *arguments(1), timeout=600, **there)
        assert again.returncode == 0 and "[cached]" in again.stdout, again.stderr[-3000:]
    first = result(tmp_path / "alone" / "storage", "seed0")
    assert all(result(user / "storage", "seed0") == first for user in users)
    assert result(users[0] / "storage", "seed1") == result(users[1] / "storage", "seed1")


@fault(
    16,
    "two homes on one S3 storage, the process that works on a run is killed",
    "one at a time; the other one takes the run up within seconds",
)
def test_two_homes_on_one_s3_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(tmp_path / "s3") as (address, _):
        here = {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        here |= {"AUTOSPARSE_STORAGE": f"s3://{BUCKET}/runs", "AWS_DEFAULT_REGION": "us-east-1"}
        for name, value in here.items():
            monkeypatch.setenv(name, value)
        other = {**os.environ, "AUTOSPARSE_HOME": str(tmp_path / "other")}
        with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, env=other) as first:
            assert first.stdout
            assert first.stdout.readline() == "held\n"
            told: list[str] = []
            with pytest.raises(TimeoutError), sole(settings.load(), "a", told.append, timeout=0):
                pass
            assert told == [f"process {first.pid} of {socket.gethostname()}"]
            with sole(settings.load(), "b", told.append, timeout=0):
                assert len(told) == 1
            first.kill()
            first.wait()
            start = time.monotonic()
            with sole(settings.load(), "a", told.append, timeout=60) as lease:
                assert lease and lease.term == 2
            assert time.monotonic() - start < 20  # nobody waits for the silence of a process that is seen to be dead
        assert len(told) == 1
