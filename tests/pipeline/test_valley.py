"""The valley between two arms: as a part of the pipeline, and on the finished run by `autosparse valley`."""

import json
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tests.pipeline.command_line import cli

pytestmark = pytest.mark.services

TINY = {"images": 64, "batch_size": 32, "steps": 3, "points": 3, "size": 3, "curvature_images": 32, "k": 2, "iterations": 4}
PICTURES = {f"{name}.{kind}" for name in ("curve", "plane", "hessian") for kind in ("png", "svg")}


def test_a_pair_of_the_spec_and_one_more_afterwards(tmp_path: Path) -> None:
    home = tmp_path / "home"
    spec = json.dumps({**TINY, "pairs": [["dense", "snip"]]})
    run = ("run", "--recipe", "smoke", "--name", "pair", "--set", 'fanout.methods=["snip"]', "--set", f"valley={spec}")
    done = cli(home, *run)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "[done] valley of lenet300-100: dense seed 10 and snip@0.1 seed 10" in done.stdout
    ids = json.loads(cli(home, "show", "pair", "--json").stdout)["ids"]

    done = cli(home, "valley", "pair", "--first", "dense", "--second", "snip", "--set", 'probes=["norms","curve"]')
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(cli(home, "show", "pair", "--json").stdout)
    assert found["ids"] == ids  # the run's own record stays
    assert [sorted(report["records"]) for report in found["valley"]] in (
        [["curve", "norms"], ["curve", "hessian", "noise", "norms"]],
        [["curve", "hessian", "noise", "norms"], ["curve", "norms"]],
    )
    whole = max(found["valley"], key=lambda report: len(report["records"]))
    assert whole["same_start"] and whole["failed"] == {} and 0 < whole["records"]["hessian"]["first"]["share"] <= 1
    assert {Path(picture).name for picture in whole["pictures"]} == PICTURES
    assert all(Path(picture).stat().st_size > 5000 for picture in whole["pictures"])
    less = min(found["valley"], key=lambda report: len(report["records"]))
    assert all(picture in done.stdout for picture in less["pictures"]) and len(less["pictures"]) == 2

    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    assert {file.path for file in client.list_artifacts(whole["mlflow_run_id"])} >= PICTURES
    folder = whole["report"].split("/pair/")[1].removesuffix("/report.json")
    assert {f"{folder}/{name}" for name in PICTURES} == {file.path for file in client.list_artifacts(ids["mlflow_run_id"], folder)}
    assert client.get_run(whole["mlflow_run_id"]).data.tags["mlflow.parentRunId"] == ids["mlflow_run_id"]
    assert client.get_run(ids["mlflow_run_id"]).info.status == "FINISHED"
    assert 'id="valley"' in (home / "storage/runs/pair/summary/report.html").read_text()

    done = cli(home, "valley", "pair", "--first", "dense", "--second", "snip")
    assert done.returncode == 0 and "[cached] valley of" in done.stdout
    for second, message in (("sinp", "--second: 'sinp' is not known"), ("dense", "allowed: another arm")):
        done = cli(home, "valley", "pair", "--first", "dense", "--second", second)
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.strip().splitlines()) == 1
