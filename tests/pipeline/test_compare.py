"""A whole comparison without sources: it ends Completed, and there is no scorer anywhere."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.pipeline.command_line import cli

pytestmark = [pytest.mark.services, pytest.mark.slow]
SMALL = (
    *("--set", 'fanout.targets=[{"network":{"name":"lenet300-100"}}]', "--set", "fanout.densities=[0.1]", "--set", "fanout.seeds=[0,1]"),
    *("--set", "fanout.methods=[snip,synflow]", "--set", "fanout.train.epochs=1"),
)


def test_a_comparison_trains_no_irp_and_registers_no_scorer(tmp_path: Path) -> None:
    done = cli(tmp_path, "run", "--recipe", "compare", "--name", "first", *SMALL)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "[6/6 arms" in done.stdout and "rounds" not in done.stdout and "scorer" not in done.stdout
    run = tmp_path / "storage/runs/first"
    assert not {"irp", "features", "scorer"} & {path.name for path in run.iterdir()}
    assert not {"irp", "scorer"} & set(json.loads((run / "spec.json").read_text())["spec"])
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert client.search_registered_models() == [] and client.search_logged_models(["0", "1"]) == []
    (experiment,) = [one for one in client.search_experiments() if one.name != "Default"]
    runs = client.search_runs([experiment.experiment_id])
    assert {one.info.status for one in runs} == {"FINISHED"}
    assert not any(name.startswith(("irp", "scorer")) for one in runs for name in one.data.params)
    with closing(sqlite3.connect(tmp_path / "prefect/prefect.db")) as database:
        flows = dict(database.execute("select name, state_type from flow_run"))
        tasks = [name for (name,) in database.execute("select name from task_run")]
        (told,) = database.execute("select description from artifact where key = 'first-result'").fetchone()
    assert flows == {"first": "COMPLETED", "fan-out first": "COMPLETED"}
    assert not any(word in name for name in tasks for word in ("features", "scorer", "round"))
    assert told.startswith("At density 0.1 ") and "scorer" not in told
    shown = cli(tmp_path, "show", "first")
    assert shown.returncode == 0 and "IRP rounds" not in shown.stdout and "scorer" not in shown.stdout
    again = cli(tmp_path, "run", "--recipe", "compare", "--name", "first", *SMALL)
    assert again.returncode == 0 and "[cached] summary" in again.stdout and "[done]" not in again.stdout
