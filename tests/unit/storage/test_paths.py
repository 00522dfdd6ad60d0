"""Keys as they are spelled, and taken apart again: earlier runs are found by them."""

from pathlib import Path

import pytest

from autosparse.storage import paths, reports
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths

RUN = RunPaths("irp")  # a name like a folder's


def test_the_keys_of_a_run_are_those_of_earlier_runs() -> None:
    assert RUN.spec == "runs/irp/spec.json" and RUN.run == "runs/irp/run.json"
    assert RUN.data("data") == "runs/irp/data/data"
    assert RUN.round("net", 3, 12) == "runs/irp/irp/net-seed3/round-012"
    assert RUN.dataset("abc") == "runs/irp/features/abc"
    assert RUN.registration == "runs/irp/scorer/registration"
    assert RUN.scores("net", 3, "grda(c=0.02)") == "runs/irp/fanout/net/seed3/grda-c-0.02"
    assert RUN.arm("net", 3, "snip", 0.05, "shuffle") == "runs/irp/fanout/net/seed3/snip/density-0.05-shuffle"
    assert RUN.arm("net", 3, "grda", None) == "runs/irp/fanout/net/seed3/grda/density-own"
    assert RUN.summary_file("report.html") == "runs/irp/summary/report.html"
    assert paths.report(RUN.scorer) == "runs/irp/scorer/report.json"
    assert paths.scores_file(RUN.scores("net", 3, "snip")) == "runs/irp/fanout/net/seed3/snip/scores.safetensors"
    assert RUN.job(RUN.round("net", 3, 12)) == "irp-net-seed3-round-012"
    job = "runs/irp/training/fanout-net-seed3-snip-density-0.1"
    assert RUN.checkpoints(RUN.arm("net", 3, "snip", 0.1)) == [job, f"{job}-b", f"{job}-c"]


def test_rounds_and_arms_are_known_by_their_keys() -> None:
    steps = [RUN.round("net", 3, 0), RUN.arm("net", 3, "snip", 0.1), RUN.arm("net", 3, "grda()", None), RUN.scores("net", 3, "snip")]
    assert [paths.is_round(step) for step in steps] == [True, False, False, False]
    assert [paths.is_arm(step) for step in steps] == [False, True, True, False]
    assert [paths.method_of(step) for step in (*steps, RUN.scorer, "snip")] == ["", "snip", "grda-default", "snip", "", ""]


@pytest.mark.parametrize("key", ["runs/irp/scorer/spec.json", "runs/irp/training/a/b/report.json", "runs/irp/scorer/myreport.json"])
def test_what_is_no_report_of_a_step(key: str) -> None:
    assert paths.reported(key) is None


def test_steps_that_are_done_are_found_below_their_folder(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for step in (RUN.scorer, RUN.round("net", 0, 1), RUN.round("net", 0, 0), f"{RUN.training}/job"):
        store.write_json(paths.report(step), {"step": step})
    store.write(f"{RUN.round('net', 0, 2)}/mask.safetensors", b"")  # begun, not done
    assert reports.steps(store, RUN.irp) == [RUN.round("net", 0, 0), RUN.round("net", 0, 1)]
    assert reports.under(store, RUN.irp) == [{"step": RUN.round("net", 0, 0)}, {"step": RUN.round("net", 0, 1)}]
    assert len(reports.steps(store, RUN.root)) == 3  # what Ray Train keeps is none


def test_the_run_of_a_key_and_the_folder_of_its_checkpoints() -> None:
    assert paths.run_of(RUN.spec) == paths.run_of(RUN.arm("net", 3, "snip", 0.1)) == "irp"
    assert [paths.run_of(key) for key in ("runs/irp", "runs/No/spec.json", "elsewhere/irp/spec.json", "")] == [None] * 4
    folder = f"{RUN.training}/job-b"
    assert paths.checkpoint_folder(f"{folder}/checkpoint/state.json") == folder
    assert [paths.checkpoint_folder(key) for key in (folder, RUN.spec, "runs/other")] == [None] * 3
