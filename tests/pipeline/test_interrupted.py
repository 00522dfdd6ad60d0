"""A run that a person calls off: it ends at once, says so everywhere and leaves no process. Going on: test_taken_up.py."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from mlflow.tracking import MlflowClient

from tests.pipeline.command_line import AUTOSPARSE, CHANGES, ROOT, copy_of, environment, wait_for

pytestmark = pytest.mark.services


@pytest.fixture
def begun(whole: tuple[Path, dict], tmp_path: Path) -> Path:
    """The home of the undisturbed run as if nothing but its first round had been done."""
    home = copy_of(whole[0], tmp_path)
    run = home / "storage/runs" / whole[1]["name"]
    for path in run.iterdir():
        if path.is_dir() and path.name not in ("data", "irp"):
            shutil.rmtree(path)
    shutil.rmtree(run / "irp/resnet8-w4-seed0/round-001")
    return home


def started(home: Path, *, until: str) -> subprocess.Popen[str]:
    """A run in a process group of its own, as a terminal makes one, that has printed the line `until`."""
    process = subprocess.Popen(
        [AUTOSPARSE, "run", "--recipe", "smoke", *CHANGES],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(home),
        cwd=ROOT,
        start_new_session=True,
        preexec_fn=listening_to_ctrl_c,
    )
    assert process.stdout
    for line in process.stdout:
        if until in line:
            return process
    raise AssertionError(f"ended before {until!r}: {process.communicate()[1]}")


def listening_to_ctrl_c() -> None:
    """A test suite in a shell's background ignores SIGINT, and its children would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_the_run_its_jobs_and_its_processes(begun: Path) -> None:
    process = started(begun, until="[ .. ] resnet8-w4 seed 0 round 1")
    wait_for(lambda: any(begun.glob("storage/runs/*/training/**/model.safetensors")))
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors[-3000:]
    assert errors.strip().splitlines()[-1] == "interrupted: the same command goes on from the last finished step"
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(children, timeout=15)
    assert not alive, [child.cmdline() for child in alive]
    assert mlflow_states(begun) == {"KILLED"}  # the run and its round
    with sqlite3.connect(begun / "prefect" / "prefect.db") as database:
        states = {state for (state,) in database.execute("select state_type from flow_run where parent_task_run_id is null")}
    assert states and not states & {"RUNNING", "PENDING", "COMPLETED"}


def test_sigterm_takes_the_embedded_server_along(tmp_path: Path) -> None:
    waiting = "with prefect_starting(load()): pass\nprint('started', flush=True)\ntime.sleep(100)"
    imports = (
        "import time\nfrom autosparse.tasks.services.embedded_prefect import prefect_starting\nfrom autosparse.tasks.settings import load"
    )
    command = f"{imports}\n{waiting}"
    with subprocess.Popen(
        [sys.executable, "-c", command], stdout=subprocess.PIPE, text=True, env=environment(tmp_path), cwd=ROOT
    ) as process:
        assert process.stdout and process.stdout.readline() == "started\n"
        (server,) = psutil.Process(process.pid).children()
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
    assert not server.is_running()


def mlflow_states(home: Path) -> set[str]:
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiment = client.get_experiment_by_name("autosparse")
    assert experiment
    return {run.info.status for run in client.search_runs([experiment.experiment_id])}
