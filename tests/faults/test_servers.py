"""Prefect and MLflow go away under a run, for a while or for good."""

import asyncio
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from mlflow.tracking import MlflowClient
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events import Event
from prefect.events.clients import PrefectEventsClient
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Running

from autosparse.storage.paths import RunPaths
from autosparse.tasks.services import prefect_setup
from tests.faults.matrix import fault
from tests.faults.runs import RUN, SMALL, mlflow_states, processes_of, read_until, result, running, versions
from tests.faults.servers import flow_runs, mlflow_server, prefect_server
from tests.pipeline.command_line import cli, wait_for

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]
AWAY_SECONDS = (10, 90)


def same(undisturbed: dict[str, Any], home: Path) -> bool:
    return all(undisturbed[key] == value for key, value in result(home / "storage").items())


def epochs(home: Path) -> dict[str, list[int]]:
    """The steps of the accuracy of every MLflow run that has any."""
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiment = client.get_experiment_by_name("autosparse")
    assert experiment
    runs = client.search_runs([experiment.experiment_id], max_results=500)
    assert max(Counter(run.info.run_name for run in runs).values()) == 1, "one run of each step"
    found = {str(run.info.run_name): [point.step for point in client.get_metric_history(run.info.run_id, "accuracy")] for run in runs}
    return {name: steps for name, steps in found.items() if steps}


@pytest.mark.slow
@fault(8, "Prefect server killed under a run, back after 10 s and again after 90 s", "Completed, one run, same bits")
@fault(9, "MLflow server killed during training, back when the scorer is registered", "each epoch there once, one version, same bits")
def test_servers_that_come_back(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    with mlflow_server(tmp_path) as mlflow, prefect_server(tmp_path) as prefect:
        with running(tmp_path, MLFLOW_TRACKING_URI=mlflow.address, PREFECT_API_URL=prefect.address) as process:
            read_until(process, "[ .. ]", "round 0")
            mlflow.kill()
            prefect.kill()
            time.sleep(AWAY_SECONDS[0])
            prefect.start()
            read_until(process, "[done]", "round 1")  # nobody waited for MLflow
            read_until(process, "[ .. ]", "register scorer")
            mlflow.start()
            read_until(process, "[ .. ]", "scorer 0.1")
            prefect.kill()
            time.sleep(AWAY_SECONDS[1])
            prefect.start()
            assert process.stdout
            process.stdout.read()
            assert process.wait(60) == 0
        assert [one["state_type"] for one in flow_runs(prefect.address, tmp_path, RUN)] == ["COMPLETED"]
    assert same(undisturbed, tmp_path)
    assert set(mlflow_states(tmp_path).values()) == {"FINISHED"}
    trained = epochs(tmp_path)
    assert sum("round" in name for name in trained) == 2
    assert all(steps == [1, 2] for name, steps in trained.items() if "scorer" not in name.split()[0] and name != "fit scorer mlp"), trained
    assert versions(tmp_path) == ["1"]
    assert not list((tmp_path / "spool").iterdir())


@pytest.mark.slow
@fault(10, "MLflow server killed during training and never back", "results in storage, Failed at the registration, `autosparse sync` later")
def test_mlflow_that_stays_away(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    with mlflow_server(tmp_path) as mlflow:
        named = {"MLFLOW_TRACKING_URI": mlflow.address}
        with running(tmp_path, AUTOSPARSE_MLFLOW_SECONDS="5", **named) as process:
            read_until(process, "[ .. ]", "round 0")
            mlflow.kill()
            assert process.stdout
            last = process.stdout.read().strip().splitlines()[-1]
            assert process.wait(60) == 2
        assert "register scorer" in last and f"autosparse sync {RUN}" in last
        with sqlite3.connect(tmp_path / "prefect" / "prefect.db") as database:
            assert ("FAILED",) in database.execute("select state_type from flow_run where name = ?", [RUN]).fetchall()
        assert not processes_of(tmp_path) or all("mlflow" in one for one in processes_of(tmp_path))
        before = (tmp_path / "storage" / RunPaths(RUN).scorer / "report.json").read_bytes()
        assert versions(tmp_path) == []

        mlflow.start()
        for _ in range(2):
            done = cli(tmp_path, "sync", RUN, **named)
            assert done.returncode == 0, done.stderr[-3000:]
            states = mlflow_states(tmp_path)
            assert states.pop(RUN) == "FAILED"
            assert states.pop("register scorer") in ("FINISHED", "FAILED")
            assert set(states.values()) == {"FINISHED"} and len(states) == 5, states  # data, two rounds, features, fit
            assert versions(tmp_path) == ["1"]
            assert [steps for name, steps in epochs(tmp_path).items() if "round" in name] == [[1, 2], [1, 2]]
        assert (tmp_path / "storage" / RunPaths(RUN).scorer / "report.json").read_bytes() == before

        done = cli(tmp_path, *SMALL, **named)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "[cached] register scorer" in done.stdout
    assert same(undisturbed, tmp_path)
    assert set(mlflow_states(tmp_path).values()) == {"FINISHED"}
    assert versions(tmp_path) == ["1"]


@fault(
    6,
    "flow process and its Prefect worker gone at once: no heartbeat any more",
    "the automation says Crashed",
    simulated="no process: the test reports one heartbeat; silence counts after 10 s",
)
def test_a_run_without_heartbeat_is_crashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(prefect_setup.SILENCE_VARIABLE, "10")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    with (
        prefect_server(tmp_path) as server,
        temporary_settings({PREFECT_API_URL: server.address}),
        get_client(sync_client=True) as client,
    ):
        prefect_setup.crash_zombies(client)
        (automation,) = client.read_automations_by_name(prefect_setup.ZOMBIES)
        assert automation.enabled
        flow_id = client.create_flow_from_name("nobody")
        made = client._client.post("/flow_runs/", json={"flow_id": str(flow_id), "state": {"type": "PENDING"}}).json()
        client.set_flow_run_state(made["id"], Running(), force=True)
        asyncio.run(heartbeat(made["id"]))
        wait_for(lambda: client.read_flow_run(made["id"]).state_type == StateType.CRASHED, 90)


async def heartbeat(flow_run: str) -> None:
    resource = {"prefect.resource.id": f"prefect.flow-run.{flow_run}", "prefect.resource.name": "nobody"}
    async with PrefectEventsClient() as client:
        await client.emit(Event(id=uuid4(), event="prefect.flow-run.heartbeat", resource=resource))  # type: ignore[arg-type]
