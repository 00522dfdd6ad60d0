"""Small real runs as processes of their own, what they leave behind, and faults put into them."""

import contextlib
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from mlflow.tracking import MlflowClient

from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths
from autosparse.tasks.results.run_view import view_run
from tests.pipeline.command_line import AUTOSPARSE, ROOT, cli, environment, without_seconds
from tests.pipeline.databases import give_databases

INJECT = str(Path(__file__).parent / "inject")
RUN = "small"
# every kind of step with one arm, and two epochs a round: there is a checkpoint to lose
CHANGES = {"irp.train.epochs": 2, "fanout.train.epochs": 2, "fanout.methods": ["scorer"], "fanout.dense": False}
RECIPE = ("run", "--recipe", "smoke", *(part for name, value in CHANGES.items() for part in ("--set", f"{name}={json.dumps(value)}")))
SMALL = (*RECIPE, "--name", RUN)


def with_faults(*faults: dict[str, Any]) -> dict[str, str]:
    """The environment in which processes and their children meet these faults (inject/sitecustomize.py)."""
    return {"PYTHONPATH": f"{INJECT}{os.pathsep}{ROOT}", "AUTOSPARSE_INJECT": json.dumps(faults)}


def run(home: Path, *changes: str, timeout: int = 280, **more: str) -> subprocess.CompletedProcess[str]:
    """The small run, to its end or its error."""
    return cli(home, *SMALL, *changes, timeout=timeout, **more)


@contextmanager
def running(home: Path, *changes: str, arguments: tuple[str, ...] = SMALL, **more: str) -> Iterator[subprocess.Popen[str]]:
    """The small run under way; whatever is left of it afterwards is killed. Read `stdout` to the line that is waited for."""
    give_databases(home)
    process = subprocess.Popen(
        [AUTOSPARSE, *arguments, *changes],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(home, **more),
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for left in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
                left.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


def read_until(process: subprocess.Popen[str], *words: str) -> list[str]:
    """The lines up to the one that has all these words."""
    lines = []
    assert process.stdout
    for line in process.stdout:
        lines.append(line)
        if all(word in line for word in words):
            return lines
    raise AssertionError("".join(["ended without ", str(words), ":\n", *lines[-30:]]))


def result(storage: str | Path, name: str = RUN) -> dict[str, Any]:
    """What must be equal bit for bit between two runs of one spec: digests of all tensors and of the data set, and all figures."""
    store = open_store(str(storage))
    root = RunPaths(name).root
    keys = [key for key in store.list(root) if key.endswith(".safetensors") and "/training/" not in key]
    found = view_run(store, name)
    return {
        "tensors": {key.removeprefix(f"{root}/"): hashlib.sha256(store.read(key)).hexdigest() for key in keys},
        "dataset": found["dataset"]["digest"],
        "rounds": without_seconds(found["rounds"]),
        "arms": without_seconds(found["arms"]),
        "scorer": found["scorer"]["metrics"],
    }


def mlflow_states(home: Path) -> dict[str, str]:
    """The state of every MLflow run of a home with embedded services, by name."""
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiment = client.get_experiment_by_name("autosparse")
    assert experiment
    return {str(found.info.run_name): found.info.status for found in client.search_runs([experiment.experiment_id], max_results=500)}


def versions(home: Path) -> list[str]:
    """The registered versions of the scorer."""
    return [str(one.version) for one in MlflowClient(f"sqlite:///{home}/mlflow.db").search_model_versions("name = 'autosparse-scorer'")]


def processes_of(home: Path) -> list[str]:
    """Command lines of all living processes that were started with that home."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if (
                process.status() != psutil.STATUS_ZOMBIE
                and process.environ().get("AUTOSPARSE_HOME") == str(home)
                and process.pid != os.getpid()
            ):
                found.append(" ".join(process.cmdline()))
    return found


def holding(folder: Path, words: list[str]) -> list[str]:
    """Files below a folder that have one of these words in them."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            found += [f"{path}: {word}" for word in words if word.encode() in data]
    return found
