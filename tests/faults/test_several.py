"""Several runs at once, and many arms in one."""

import statistics
import subprocess
import time
import urllib.request
from collections import Counter
from pathlib import Path

import psutil
import pytest
from mlflow.tracking import MlflowClient

from autosparse.storage.open_store import open_store
from autosparse.tasks.results.run_view import last_runs, view_run
from tests.faults.matrix import fault
from tests.faults.runs import mlflow_states, read_until, running, versions
from tests.faults.servers import prefect_server

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(900)]
TINY = ("run", "--recipe", "smoke", "--set", "irp.rounds=1")
ONE_ARM = (*TINY, "--set", 'fanout.methods=["scorer"]', "--set", "fanout.dense=false")
ARMS = 200
GROWTH_BYTES = 200 * 2**20  # 118 MB with 20 arms (what the first ones import), 124 MB with 200
EARLY_ARMS = 20
LATE_GROWTH_BYTES = 32 * 2**20  # of all arms after the early ones together
ANSWER_SECONDS = 1.0


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
