"""A sweep of two runs to its end, and the same command again."""

import json
from pathlib import Path

import pytest

from tests.pipeline.command_line import cli

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(1200)]
SWEEP = (
    *("sweep", "--recipe", "smoke", "--name", "grid", "--over", "fanout.train.lr=0.05,0.1"),
    *("--set", "fanout.methods=[snip,random]", "--set", "fanout.seeds=[10,11]"),
)
NAMES = ["grid-lr-0_05", "grid-lr-0_1"]


def test_a_sweep_does_each_run_once_and_makes_one_table(tmp_path: Path) -> None:
    done = cli(tmp_path, *SWEEP, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "run 2 of 2: grid-lr-0_1" in done.stdout
    assert "| fanout.train.lr | method | density 0.1 |" in done.stdout and "| 0.05 | snip |" in done.stdout
    again = cli(tmp_path, *SWEEP, "--json")
    found = json.loads(again.stdout)
    assert [(swept["name"], swept["status"]) for swept in found["runs"]] == [(name, "done before") for name in NAMES]
    assert {(row["fanout.train.lr"], row["method"], row["n"]) for row in found["table"]["rows"]} == {
        (lr, method, 2) for lr in (0.05, 0.1) for method in ("dense", "snip", "random")
    }
    table = json.loads(cli(tmp_path, "table", *NAMES, "--over", "fanout.train.lr", "--json").stdout)
    assert table == found["table"]
