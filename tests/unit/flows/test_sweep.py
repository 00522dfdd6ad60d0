"""The grid of a sweep, the names of its runs, and what becomes of each."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autosparse.flows.assignments import parse_grid
from autosparse.flows.recipes import smoke
from autosparse.flows.sweep_command import DONE, FAILED, RAN, SweepRun, run_each, swept_name
from autosparse.models.errors import DataError, SpecError
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths, report

Typed = Callable[..., subprocess.CompletedProcess[str]]


def test_a_grid_is_split_at_commas_outside_brackets() -> None:
    texts = ("fanout.train.lr=0.05,1e-1", "fanout.methods=[snip,grda(c=0.05,mu=0.8)],[random]", "data.name=digits,mnist")
    assert parse_grid(texts) == {
        "fanout.train.lr": [0.05, 0.1],
        "fanout.methods": [["snip", "grda(c=0.05,mu=0.8)"], ["random"]],
        "data.name": ["digits", "mnist"],
    }


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("fanout.train.lr",), "--over: 'fanout.train.lr' is not allowed; allowed: FIELD=VALUE,VALUE"),
        (("fanout.train.lr=0.1",), "allowed: two or more values, no two the same"),
        (("fanout.train.lr=0.1,0.10",), "allowed: two or more values, no two the same"),
        (("fanout.methods=[snip,random]",), r"lists as \[snip\],\[snip,scorer\]"),
        (("irp.rounds=1,2", "irp.rounds=3,4"), "--over: 'irp.rounds' is not allowed; allowed: each field once"),
    ],
)
def test_a_bad_grid_is_one_line(texts: tuple[str, ...], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_grid(texts)


def test_names_of_runs() -> None:
    assert (
        swept_name("grid", {"fanout.train.lr": 0.05, "fanout.methods": ["snip", "smallest_paths"]})
        == "grid-lr-0_05-methods-snip-smallest_paths"
    )
    assert swept_name("grid", {"irp.train.lr": 0.1, "fanout.train.lr": 1}) == "grid-irp-train-lr-0_1-fanout-train-lr-1"
    spelled = [swept_name("grid", {"scorer.tilt": value}) for value in ([], [-1.0], [1.0], ["a-b"], ["a", "b"])]
    assert len(set(spelled)) == 5 and spelled[2] == "grid-tilt-1_0" and spelled[1].startswith("grid-tilt-1_0-")
    long = [swept_name("grid", {"data.path": f"/a/{'long' * 30}/{number}"}) for number in (1, 2)]
    assert long[0] != long[1] and all(RunPaths(name).name == name and len(name) == 63 for name in long)


def swept(name: str) -> SweepRun:
    return SweepRun(name=name, values={"irp.rounds": 2}, spec=smoke())


def test_a_failed_run_stops_no_other_and_a_done_one_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_store(str(tmp_path))
    store.write_json(report(RunPaths("before").summary), {})
    ran: list[str] = []
    asked: list[bool] = []

    def runner() -> Callable[[SweepRun], None]:
        asked.append(True)

        def run(one: SweepRun) -> None:
            ran.append(one.name)
            if one.name == "bad":
                raise DataError("data: gone\nand more")

        return run

    outcomes = run_each([swept("before"), swept("bad"), swept("good")], store, runner)
    assert [(outcome.swept.name, outcome.status) for outcome in outcomes] == [("before", DONE), ("bad", FAILED), ("good", RAN)]
    assert outcomes[1].error == "DataError: data: gone" and ran == ["bad", "good"] and asked == [True]
    assert "run 2 of 3: bad failed: data: gone\n" in capsys.readouterr().err
    assert run_each([swept("before")], store, runner)[0].status == DONE and asked == [True]


def test_an_interruption_ends_the_sweep(tmp_path: Path) -> None:
    def run(one: SweepRun) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_each([swept("one"), swept("two")], open_store(str(tmp_path)), lambda: run)


def test_a_dry_run_shows_every_run_and_starts_nothing(typed: Typed, clean_settings: Path) -> None:
    # a list of one may stand without brackets
    line = ("sweep", "--recipe", "smoke", "--name", "grid", "--over", "fanout.train.lr=0.05,0.1", "--over", "fanout.densities=0.1,0.05")
    done = typed(*line, "--dry-run", "--json")
    runs: list[dict[str, Any]] = json.loads(done.stdout)["runs"]
    assert [one["name"] for one in runs] == [
        *("grid-lr-0_05-densities-0_1", "grid-lr-0_05-densities-0_05"),
        *("grid-lr-0_1-densities-0_1", "grid-lr-0_1-densities-0_05"),
    ]
    assert runs[1]["values"] == {"fanout.train.lr": 0.05, "fanout.densities": [0.05]} and runs[1]["trainings"] == 2 + 3
    assert not (clean_settings / "storage").exists() and not (clean_settings / "cache").exists()


def test_every_bad_run_is_named_before_anything_starts(typed: Typed, clean_settings: Path) -> None:
    done = typed("sweep", "--recipe", "smoke", "--name", "grid", "--over", "fanout.train.lr=0.1,-1,-2")
    assert done.returncode == 2 and not done.stdout and not (clean_settings / "storage").exists()
    first, second = done.stderr.splitlines()
    assert first.startswith("error: grid-lr-1-") and first.endswith(": fanout.train.lr: -1.0 is not allowed; allowed: > 0")
    assert second.startswith("error: grid-lr-2-")
