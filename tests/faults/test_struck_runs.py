"""Whole runs whose workers, driver or clocks are struck: what is left of them in storage, Prefect and MLflow."""

import json
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tests.faults.matrix import fault
from tests.faults.runs import RUN, mlflow_states, processes_of, result, run, with_faults
from tests.pipeline.command_line import wait_for

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(900)]
STEP = "autosparse.models.training.loop:train_step"
LOSS = "autosparse.models.training.step:_fill_gradients"
MID_EPOCH = 6  # the call of a step in the middle of the second epoch
SOURCE = "irp/lenet300-100-seed0"
PATIENCE = 600


def folder(home: Path) -> Path:
    return home / "storage/runs" / RUN


def until_recorded(home: Path) -> str:
    """A pattern of the file that says that Ray Train knows of a checkpoint."""
    return f"{folder(home)}/training/*/checkpoint_manager_snapshot.json"


def prefect(home: Path, query: str) -> list[Any]:
    """Rows out of the database of the embedded Prefect."""
    with closing(sqlite3.connect(home / "prefect/prefect.db")) as database:
        return database.execute(query).fetchall()


def flow_states(home: Path) -> dict[str, str]:
    return dict(prefect(home, "select flow.name, flow_run.state_type from flow_run join flow on flow.id = flow_run.flow_id"))


def epochs_in_mlflow(home: Path) -> dict[str, list[int]]:
    """The steps at which each MLflow run has a loss, by the name of the run."""
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiment = client.get_experiment_by_name("autosparse")
    assert experiment
    runs = client.search_runs([experiment.experiment_id], max_results=500)
    steps = {str(one.info.run_name): [point.step for point in client.get_metric_history(one.info.run_id, "loss")] for one in runs}
    return {name: found for name, found in steps.items() if found}


def seconds(found: Any) -> Iterator[float]:
    """Every duration in a report."""
    for name, value in found.items() if isinstance(found, dict) else enumerate(found):
        if isinstance(value, dict | list):
            yield from seconds(value)
        elif str(name).endswith("seconds") and value is not None:
            yield value


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One run in which a worker is killed once, and every clock goes back an hour: the flow's in its third step, the workers' too."""
    home = tmp_path_factory.mktemp("disturbed")
    kill = {"where": STEP, "call": MID_EPOCH, "do": "kill", "once": str(home / "struck"), "until": until_recorded(home)}
    clocks = [{"where": where, "call": 3, "do": "set_back"} for where in ("autosparse.tasks.engine.step:run_step", STEP)]
    done = run(home, timeout=PATIENCE, **with_faults(kill, *clocks))
    assert done.returncode == 0, done.stderr[-3000:]
    return home, done


@fault(1, "the same in a whole run", "same bits, every epoch once in MLflow, the restart among the logs in the UI")
def test_a_run_with_a_killed_worker(undisturbed: dict[str, Any], disturbed: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    home, done = disturbed
    assert all(undisturbed[key] == value for key, value in result(home / "storage").items())
    epochs = epochs_in_mlflow(home)
    trainings = [steps for name, steps in epochs.items() if " round " in name or " seed 10" in name]
    assert len(trainings) >= 3
    assert all(steps == [1, 2] for steps in trainings)
    assert set(mlflow_states(home).values()) == {"FINISHED"}
    assert prefect(home, "select count(*) from log where message like '%round 0%: restart 1/3 %'") == [(1,)]
    assert done.stdout.count("[again]") == 1
    wait_for(lambda: not processes_of(home))


@fault(
    24, "the clocks of flow and workers go back an hour in mid-run", "no negative duration or estimate, same bits", simulated="time.time"
)
def test_clocks_that_go_back(undisturbed: dict[str, Any], disturbed: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    home, done = disturbed
    assert all(undisturbed[key] == value for key, value in result(home / "storage").items())
    reports = [json.loads(path.read_text()) for path in folder(home).rglob("report.json")]
    durations = [value for report in reports for value in seconds(report)]
    assert len(durations) > len(reports)
    assert min(durations) >= 0 and max(durations) < PATIENCE
    shown = [float(number) for number in re.findall(r"(?:about |\()(-?[\d.]+) (?:min left|s\))", done.stdout)]
    assert shown and min(shown) >= 0


@fault(2, "worker killed at every attempt", "given up after 3 restarts: Failed, FAILED, an error with rank, reason and the logs of Ray")
def test_a_worker_that_always_dies(tmp_path: Path) -> None:
    done = run(tmp_path, timeout=PATIENCE, **with_faults({"where": STEP, "call": 2, "do": "kill"}))
    assert done.returncode == 2
    assert done.stdout.count("[again]") == 3
    error = done.stderr.strip().splitlines()[-1]
    assert "rank 0" in error and "3 restarts" in error
    logs = re.search(r"logs of its workers: (\S+)", error)
    assert logs and list(Path(logs[1]).glob("worker-*"))
    assert set(flow_states(tmp_path).values()) == {"FAILED"}
    states = mlflow_states(tmp_path)
    assert states[RUN] == "FAILED" and "RUNNING" not in states.values()
    wait_for(lambda: not processes_of(tmp_path))


@fault(19, "the same in a whole run", "Failed, FAILED; norms per layer beside the step and in MLflow, last checkpoint kept")
def test_a_run_that_diverges(tmp_path: Path) -> None:
    done = run(
        tmp_path, timeout=PATIENCE, **with_faults({"where": LOSS, "call": MID_EPOCH, "do": "nan", "until": until_recorded(tmp_path)})
    )
    assert done.returncode == 2
    assert "[again]" not in done.stdout
    failure = json.loads((folder(tmp_path) / SOURCE / "round-000/failure.json").read_text())
    assert (failure["error"], failure["step"]) == ("DivergedError", MID_EPOCH - 1)
    assert all(norm > 0 for norm in failure["gradient_norms"].values())
    assert list((tmp_path / "mlflow-artifacts").rglob("failure.json"))
    assert list((folder(tmp_path) / "training").glob("*/checkpoint_*/state.json"))
    assert not (folder(tmp_path) / SOURCE / "round-000/report.json").exists()
    assert set(flow_states(tmp_path).values()) == {"FAILED"}
    assert mlflow_states(tmp_path)[RUN] == "FAILED"
