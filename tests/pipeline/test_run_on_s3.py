"""The whole pipeline with its storage on a real S3 server: the setting alone, and the same numbers as on local files."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.pipeline.command_line import CHANGES, cli, without_seconds
from tests.s3_server import BUCKET, KEY, SECRET, s3_server

pytestmark = [pytest.mark.services, pytest.mark.s3, pytest.mark.slow]


def test_a_run_on_s3_has_the_numbers_of_a_local_one(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    _, expected = whole
    home = tmp_path / "home"
    with s3_server(tmp_path / "s3") as (address, _):
        there = {
            "AUTOSPARSE_STORAGE": f"s3://{BUCKET}/team/autosparse",
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        done = cli(home, "run", "--recipe", "smoke", *CHANGES, **there)
        assert done.returncode == 0, done.stderr[-3000:]
        assert SECRET not in done.stdout + done.stderr
        found = json.loads(cli(home, "show", expected["name"], "--json", **there).stdout)
        out = tmp_path / "masks.safetensors"
        options = ("--scorer", found["addresses"]["scorer"], "--density", "0.1", "--data", "digits", "--out", str(out))
        pruned = cli(home, "prune", "examples.own_network:build", *options, **there)
        assert pruned.returncode == 0, pruned.stderr[-3000:]
    assert sum(int(mask.sum()) for mask in load_file(out).values()) > 0
    assert not (home / "storage").exists()
    assert found["addresses"]["features"].startswith(f"s3://{BUCKET}/team/autosparse/")
    assert without_seconds(found["rounds"]) == without_seconds(expected["rounds"])
    assert without_seconds(found["arms"]) == without_seconds(expected["arms"])
    assert found["dataset"]["digest"] == expected["dataset"]["digest"]
    assert found["scorer"]["metrics"] == expected["scorer"]["metrics"]
