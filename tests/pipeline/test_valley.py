"""The valley between two arms: as a part of the pipeline, and on the finished run by `autosparse valley`."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from autosparse.storage.open_store import open_store
from autosparse.tasks.results.run_view import view_run
from tests.pipeline.command_line import METHOD, cli

pytestmark = pytest.mark.services

PICTURES = {f"{name}.{kind}" for name in ("curve", "plane", "hessian") for kind in ("png", "svg")}


def test_a_pair_of_the_spec_has_numbers_and_pictures_wherever_people_look(whole: tuple[Path, dict]) -> None:
    home, found = whole
    [report] = found["valley"]
    assert (report["first"]["short"], report["second"]["short"]) == ("dense", METHOD)
    assert report["same_start"] and report["failed"] == {} and set(report["records"]) == {"norms", "curve", "hessian", "noise"}
    assert 0 < report["records"]["hessian"]["first"]["share"] <= 1
    assert {Path(picture).name for picture in report["pictures"]} == PICTURES
    assert all(Path(picture).stat().st_size > 5000 for picture in report["pictures"])
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    assert {file.path for file in client.list_artifacts(report["mlflow_run_id"])} >= PICTURES
    folder = report["report"].split(f"/{found['name']}/")[1].removesuffix("/report.json")
    kept = client.list_artifacts(found["ids"]["mlflow_run_id"], folder)
    assert {file.path for file in kept} == {f"{folder}/{name}" for name in PICTURES}
    assert 'id="valley"' in (home / "storage/runs" / found["name"] / "summary/report.html").read_text()


def test_another_pair_of_the_finished_run(whole: tuple[Path, dict], typed: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    home, found = whole
    arms = ("valley", found["name"], "--first", "dense")
    before = view_run(open_store(str(home / "storage")), found["name"])
    done = cli(home, *arms, "--second", "scorer", "--set", 'probes=["norms","curve"]')
    assert done.returncode == 0, done.stderr[-3000:]
    now = view_run(open_store(str(home / "storage")), found["name"])
    assert (now["ids"], now["arms"]) == (before["ids"], before["arms"])  # the run's own record stays
    [report] = [report for report in now["valley"] if report["second"]["short"] == "scorer@0.1"]
    assert set(report["records"]) == {"norms", "curve"}
    assert len(report["pictures"]) == 2 and all(picture in done.stdout for picture in report["pictures"])
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    assert client.get_run(report["mlflow_run_id"]).data.tags["mlflow.parentRunId"] == before["ids"]["mlflow_run_id"]
    done = typed(*arms, "--second", "scorre", AUTOSPARSE_HOME=str(home))
    assert done.returncode == 2 and "--second: 'scorre' is not known" in done.stderr and len(done.stderr.strip().splitlines()) == 1
