"""A run that a person calls off: it ends at once, says so everywhere, leaves no process, and goes on from there."""

import json
import os
import signal
import sqlite3
import subprocess
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.tracking import MlflowClient

from tests.pipeline.command_line import AUTOSPARSE, CHANGES, ROOT, cli, environment, wait_for, without_seconds

pytestmark = pytest.mark.services

LONG = ("--set", "irp.train.epochs=500")


def started(home: Path, *changes: str, until: str) -> subprocess.Popen[str]:
    """A run in a process group of its own, as a terminal makes one, that has printed the line `until`."""
    process = subprocess.Popen(
        [AUTOSPARSE, "run", "--recipe", "smoke", *changes],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(home),
        cwd=ROOT,
        start_new_session=True,
    )
    assert process.stdout
    for line in process.stdout:
        if until in line:
            return process
    raise AssertionError(f"ended before {until!r}: {process.communicate()[1]}")


@pytest.mark.parametrize("moment", ["training", "starting"])
def test_ctrl_c_ends_the_run_its_jobs_and_its_processes(tmp_path: Path, moment: str) -> None:
    process = started(tmp_path, *LONG, until="[ .. ] lenet300-100 seed 0 round 0" if moment == "training" else "[ .. ] data digits")
    if moment == "training":
        wait_for(lambda: any(tmp_path.rglob("model.safetensors")))
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors[-3000:]
    assert errors.strip().splitlines()[-1] == "interrupted: the same command goes on from the last finished step"
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(children, timeout=15)
    assert not alive, [child.cmdline() for child in alive]
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("autosparse").experiment_id])  # type: ignore[union-attr]
    assert {run.info.status for run in runs} <= {"KILLED", "FINISHED"}
    assert "KILLED" in {run.info.status for run in runs}
    with sqlite3.connect(tmp_path / "prefect" / "prefect.db") as database:
        states = {state for (state,) in database.execute("select state_type from flow_run")}
    assert not states & {"RUNNING", "PENDING", "COMPLETED"}


def test_an_interrupted_run_ends_with_the_same_numbers(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    _, expected = whole
    process = started(tmp_path, *CHANGES, until="[ .. ] resnet8-w4 seed 0 round 1")
    watchdog = threading.Timer(100, process.kill)
    watchdog.start()
    os.killpg(process.pid, signal.SIGINT)
    process.communicate()
    watchdog.cancel()
    assert process.returncode == 130
    done = cli(tmp_path, "run", "--recipe", "smoke", *CHANGES)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(cli(tmp_path, "show", expected["name"], "--json").stdout)
    assert without_seconds(found["rounds"]) == without_seconds(expected["rounds"])
    assert without_seconds(found["arms"]) == without_seconds(expected["arms"])
    assert found["scorer"]["metrics"] == expected["scorer"]["metrics"]
