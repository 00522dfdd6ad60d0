"""Tasks of one's own through the whole DAG: a text teaches the scorer, which then prunes networks of a table and of a segmentation."""

import json
from pathlib import Path

import pytest

from tests.pipeline.command_line import cli

pytestmark = pytest.mark.services

TARGETS = [
    {"network": {"name": "examples.own_text:Writer"}},
    {"network": {"name": "examples.own_table:build"}, "data": {"name": "examples.own_table:Progress"}},
    {"network": {"name": "examples.own_segmentation:Finder"}, "data": {"name": "examples.own_segmentation:Finding"}},
]
METRICS = {
    "examples.own_text:Writing": "perplexity",
    "examples.own_table:Progress": "error",
    "examples.own_segmentation:Finding": "mean_iou",
}
SETTINGS = (
    *("--set", f"fanout.targets={json.dumps(TARGETS)}"),
    *("--set", "fanout.methods=[snip,scorer]", "--set", "fanout.controls=[shuffle]", "--set", "fanout.dense=true"),
    *("--set", "fanout.train.lr=0.05", "--set", "irp.train.epochs=1", "--set", "fanout.train.epochs=1"),
)


@pytest.mark.slow
def test_a_table_goes_through_the_whole_dag(tmp_path: Path) -> None:
    done = cli(tmp_path, "run", "--recipe", "examples.own_table:recipe", "--name", "table", "--set", "fanout.methods=[snip,scorer]")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "test error (points of the scale), last epoch" in done.stdout
    found = json.loads(cli(tmp_path, "show", "table", "--json").stdout)
    assert [(row["metric"]["name"], row["accuracy"]) for row in found["rounds"]] == [("error", None)] * 2
    arms = {arm["method"]: arm for arm in found["arms"]}
    assert set(arms) == {"dense", "snip", "scorer"} and {arm["status"] for arm in arms.values()} == {"ok"}
    assert all({"error", "absolute_error"} == set(arm["metrics"]) for arm in arms.values())
    assert 40 < arms["dense"]["metrics"]["error"] < 100  # points of a scale from 25 to 346
    page = (tmp_path / "storage/runs/table/summary/report.html").read_text()
    assert "error (points of the scale)" in page and "lower is better" in page
    inspected = cli(tmp_path, "inspect", "table", "snip@0.1")
    assert inspected.returncode == 0, inspected.stderr


@pytest.mark.slow
def test_one_run_has_three_tasks_each_with_its_own_metric(tmp_path: Path) -> None:
    done = cli(tmp_path, "run", "--recipe", "examples.own_text:recipe", "--name", "tasks", *SETTINGS, timeout=580)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "epoch" not in done.stderr and "perplexity" in done.stdout

    found = json.loads(cli(tmp_path, "show", "tasks", "--json").stdout)
    assert [(row["metric"]["name"], row["accuracy"]) for row in found["rounds"]] == [("perplexity", None)] * 2
    assert all(1 < row["metrics"]["perplexity"] < 128 for row in found["rounds"])
    arms = {(arm["dataset"], arm["method"]): arm for arm in found["arms"]}
    assert {data for data, _ in arms} == set(METRICS) and len(arms) == 3 * 5
    assert all(arm["metric"]["name"] == METRICS[data] and arm["status"] == "ok" for (data, _), arm in arms.items())
    assert {"error", "absolute_error"} == set(arms["examples.own_table:Progress", "snip"]["metrics"])
    masks = [arm["kept_density"] for (_, method), arm in arms.items() if method != "dense"]
    assert masks == pytest.approx([0.1] * 12, rel=0.02)
    assert {row["metric"]["better"] for row in found["summary"]} == {"higher", "lower"}

    summary = tmp_path / "storage/runs/tasks/summary"
    page = (summary / "report.html").read_text()
    for words in (
        "perplexity",
        "error (points of the scale)",
        "mean iou",
        "lower is better",
        "the scorer was fitted on examples.own_text:Writing",
    ):
        assert words in page, words
    assert "accuracy" not in (summary / "summary.md").read_text()
    shown = cli(tmp_path, "show", "tasks")
    assert shown.returncode == 0 and "perplexity" in shown.stdout and "test value, last epoch" in shown.stdout
    arm = f"{arms['examples.own_table:Progress', 'snip']['target']}/snip@0.1"
    inspected = cli(tmp_path, "inspect", "tasks", arm)
    assert inspected.returncode == 0, inspected.stderr
    again = cli(tmp_path, "run", "--recipe", "examples.own_text:recipe", "--name", "tasks", *SETTINGS)
    assert again.returncode == 0 and "[done] summary" not in again.stdout and "[cached] summary" in again.stdout


@pytest.mark.slow
@pytest.mark.parametrize("task", ["text", "table", "segmentation"])
def test_each_example_runs_as_its_first_lines_say(task: str, tmp_path: Path) -> None:
    done = cli(tmp_path, "run", "--recipe", f"examples.own_{task}:recipe")
    assert done.returncode == 0, done.stderr[-3000:]
