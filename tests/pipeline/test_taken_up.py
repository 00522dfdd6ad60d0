"""A run that is killed in the middle and taken up again."""

import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import psutil
import pytest

from autosparse.storage.dataset_manifest import MANIFEST
from tests.pipeline.command_line import AUTOSPARSE, CHANGES, ROOT, cli, environment, wait_for, without_seconds
from tests.pipeline.databases import give_databases

pytestmark = pytest.mark.services

# the part of the undisturbed run that a kill in a round can change: rounds, data set, scorer, and an arm with its mask
PART = (*CHANGES, "--set", 'fanout.methods=["scorer"]', "--set", "fanout.dense=false", "--set", "valley.pairs=[]")


def test_killed_in_the_middle_of_a_round_it_ends_with_the_same_numbers(whole: tuple[Path, dict], tmp_path: Path) -> None:
    _, expected = whole
    home = tmp_path / "killed"
    command = [AUTOSPARSE, "run", "--recipe", "smoke", "--name", "killed", *PART]
    give_databases(home)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(home), cwd=ROOT, start_new_session=True
    )
    watchdog = threading.Timer(200, process.kill)
    watchdog.start()
    assert process.stdout
    for printed in process.stdout:
        if "[ .. ]" in printed and "round 1" in printed:
            break
    checkpoints = home / "storage/runs/killed/training"
    wait_for(lambda: any(checkpoints.rglob("model.safetensors")))
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.stdout.close()
    process.wait()
    watchdog.cancel()

    done = cli(home, "run", "--recipe", "smoke", "--name", "killed", *PART)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "[cached] resnet8-w4 seed 0 round 0" in done.stdout
    found = json.loads(cli(home, "show", "killed", "--json").stdout)
    assert without_seconds(found["rounds"]) == without_seconds(expected["rounds"])
    assert [arm["method"] for arm in found["arms"]] == ["scorer"]
    assert without_seconds(found["arms"]) == without_seconds([arm for arm in expected["arms"] if arm["method"] == "scorer"])
    assert parts_of(found) == parts_of(expected)
    assert found["scorer"]["metrics"] == expected["scorer"]["metrics"]
    _, left = psutil.wait_procs(children, timeout=10)
    assert not left, "the killed run left processes behind that the next one did not end"


def parts_of(run: dict) -> list[dict]:
    """The files of the feature data set with their checksums; the digest of the whole has the fingerprint of the spec in it."""
    return json.loads((Path(run["dataset"]["uri"]) / MANIFEST).read_text())["parts"]
