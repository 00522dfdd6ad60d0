"""`autosparse rm` and `status` on a finished run: what is freed, what stays, and how what is damaged is made again."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autosparse.models.errors import DataError
from autosparse.storage import paths, reports
from autosparse.storage.feature_table import open_dataset
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths
from autosparse.storage.scorer_files import read_scorer_files
from autosparse.storage.store import Store
from autosparse.tasks import settings
from autosparse.tasks.arm_networks import load_tensors
from autosparse.tasks.engine.lock import sole
from autosparse.tasks.results.record import load_mask
from tests.faults.test_storage import files, spoil
from tests.pipeline.command_line import copy_of

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]
Typed = Callable[..., subprocess.CompletedProcess[str]]


def on_disk(folder: Path) -> int:
    """Bytes of the blocks that the files take up, as `du` counts them."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def home(whole: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the storage of a finished run, in a home without anything else."""
    found = copy_of(whole[0], tmp_path)
    monkeypatch.setenv("AUTOSPARSE_HOME", str(found))
    return found


@pytest.fixture
def name(whole: tuple[Path, dict[str, Any]]) -> str:
    return whole[1]["name"]


def test_rm_lists_first_and_then_frees_what_it_names(home: Path, name: str, typed: Typed) -> None:
    before, size = files(home / "storage/runs"), on_disk(home / "storage")
    listed = typed("rm", name, "--json")
    assert listed.returncode == 0, listed.stderr
    said = json.loads(listed.stdout)
    assert files(home / "storage/runs") == before and not said["deleted"]
    assert said["bytes"] == sum((home / "storage/runs" / key).stat().st_size for key in before)
    [place] = said["runs"][0]["places"]
    assert (place["what"], place["bytes"]) == (f"{len(before)} files", said["bytes"])
    done = typed("rm", name, "--delete")
    assert done.returncode == 0 and "freed " in done.stdout, done.stderr
    assert size - on_disk(home / "storage") >= 0.9 * said["bytes"] > 1e6
    assert files(home / "storage") == []  # the files of the lock went too
    again = typed("rm", name)
    assert again.returncode == 2 and f"run: '{name}' has nothing to remove in {home / 'storage'}" in again.stderr


def test_a_run_that_is_at_work_is_not_touched(home: Path, name: str, typed: Typed) -> None:
    before = files(home / "storage/runs")
    with sole(settings.load(), name, print):
        for command in (("rm", name, "--delete"), ("rm", name, "--step", "scorer", "--delete"), ("rm", name, "--keep-tables", "--delete")):
            refused = typed(*command)
            assert refused.returncode == 2 and f"run: '{name}' is at work in process" in refused.stderr, refused.stderr
        by_age = typed("rm", "--keep-days", "0", "--delete")
        assert by_age.returncode == 0 and f"stays: '{name}' is at work in process" in by_age.stdout, by_age.stdout
    assert files(home / "storage/runs") == before


def test_tables_stay_when_asked_for_and_nothing_goes_on_from_them(home: Path, name: str, typed: Typed) -> None:
    shown, size = typed("show", name), on_disk(home / "storage")
    said = json.loads(typed("rm", name, "--keep-tables", "--delete", "--json").stdout)
    assert size - on_disk(home / "storage") >= 0.9 * said["bytes"] > 400_000
    left = files(home / "storage/runs" / name)
    assert not [key for key in left if key.endswith((".safetensors", ".parquet"))]
    assert {"spec.json", "cleared.json", "summary/summary.md", "summary/report.html", "summary/accuracy_density.png"} <= {*left}
    assert typed("show", name).stdout == shown.stdout
    assert typed("report", name, "--out", str(home / "page.html")).returncode == 0
    assert "cleared" in typed("status").stdout
    assert [run["cleared"] for run in json.loads(typed("status", "--json").stdout)["runs"]] == [True]
    spec = home / "spec.json"
    spec.write_text(json.dumps(json.loads((home / "storage/runs" / name / "spec.json").read_text())["spec"]))
    for command in (("run", "--spec", str(spec), "--name", name), ("sync", name), ("rm", name, "--step", "scorer")):
        refused = typed(*command)
        line = f"error: name: '{name}' was cleared on .*; allowed: another --name, or the same after: autosparse rm {name} --delete$"
        assert refused.returncode == 2 and re.search(line, refused.stderr.strip()), refused.stderr
    again = typed("rm", name, "--keep-tables")
    assert again.returncode == 2 and "was cleared on" in again.stderr
    assert typed("rm", name, "--delete").returncode == 0 and files(home / "storage") == []


READ: dict[str, tuple[str, Callable[[Store, str], Any]]] = {  # what is damaged -> a pattern of its key, and who reads it
    "a report": (r"irp/[^/]+/round-001/report\.json", lambda store, key: reports.find(store, key.rpartition("/")[0])),
    "a mask of a round": (r"irp/[^/]+/round-000/mask\.safetensors", lambda store, key: load_mask(store.read(key), source=store.uri(key))),
    "a state of a source": (r"irp/[^/]+/rewind\.safetensors", lambda store, key: load_tensors(store.read(key), source=store.uri(key))),
    "a manifest": (r"features/[^/]+/_manifest\.json", lambda store, key: open_dataset(store.uri(key.rpartition("/")[0]))),
    "features": (r"features/[^/]+/part-00000\.parquet", lambda store, key: open_dataset(store.uri(key.rpartition("/")[0]))),
    "a scorer": (r"scorer/scorer\.safetensors", lambda store, key: read_scorer_files(store, key.rpartition("/")[0])),
    "a scorer's card": (r"scorer/scorer\.json", lambda store, key: read_scorer_files(store, key.rpartition("/")[0])),
    "a mask of an arm": (r"fanout/.*/mask-[0-9.]+\.safetensors", lambda store, key: load_mask(store.read(key), source=store.uri(key))),
    "weights of an arm": (r"fanout/.*/weights\.safetensors", lambda store, key: load_tensors(store.read(key), source=store.uri(key))),
    "the summary": (r"summary/report\.json", lambda store, key: reports.find(store, key.rpartition("/")[0])),
}


@pytest.mark.parametrize("damage", ["flip", "gone"])
def test_every_damaged_artifact_names_the_command_that_makes_it_again(home: Path, name: str, typed: Typed, damage: str) -> None:
    store, run = open_store(str(home / "storage")), RunPaths(name)
    for what, (pattern, read) in READ.items():
        key = next(key for key in store.list(run.root) if re.fullmatch(pattern, run.within(key)))
        path, content = home / "storage" / key, store.read(key)
        read(store, key)
        if damage == "gone":
            path.unlink()
        else:
            at = 0 if key.endswith(".json") else len(content) // 2  # JSON has no digest: a byte that leaves it JSON is not seen
            path.write_bytes(content[:at] + bytes([content[at] ^ 0x80]) + content[at + 1 :])
        if damage == "gone" and key == paths.report(key.rpartition("/")[0]):
            assert read(store, key) is None, what  # then the run makes it without being told
        else:
            with pytest.raises(DataError) as caught:
                read(store, key)
            command = str(caught.value).rpartition("; the same run makes it again after: autosparse ")[2]
            assert re.fullmatch(rf"rm {name} --step [^ ]+ --delete", command), f"{what}: {caught.value}"
            dry = typed(*command.removesuffix(" --delete").split())
            assert dry.returncode == 0 and " steps that are done" in dry.stdout, f"{what}: {dry.stderr}"
        path.write_bytes(content)


def test_a_step_goes_with_what_was_built_on_it_and_the_rest_stays(home: Path, name: str, typed: Typed) -> None:
    there = home / "storage/runs" / name
    before = set(files(there))
    assert typed("rm", name, "--step", "scorer", "--delete").returncode == 0
    gone = {key.split("/")[0] if not key.startswith("fanout") else "/".join(key.split("/")[3:4]) for key in before - set(files(there))}
    assert gone == {"scorer", "scorer_growth", "valley", "summary"}
    assert not [key for key in files(there) if key.startswith(("scorer", "summary", "valley"))]
    spoil(there / "spec.json", "cut")
    refused = typed("rm", name, "--step", "features")
    assert refused.returncode == 2 and refused.stderr.strip().endswith(f"after: autosparse rm {name} --delete"), refused.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "RUN: '' is not allowed; allowed: names of runs, or --keep-days and --keep-bytes, which choose them"),
        (("x", "--keep-days", "3"), "RUN: 'x' is not allowed; allowed: names of runs, or --keep-days and --keep-bytes"),
        (("X!",), "name: 'X!' is not allowed"),
        (("nobody",), "run: 'nobody' has nothing to remove in "),
        (("nobody", "--step", "scorer"), "run: 'nobody' is not in "),
        (("x", "y", "--step", "scorer"), "--step: 'scorer' is not allowed; allowed: with one RUN"),
        (("--keep-bytes", "much"), "--keep-bytes: 'much' is not allowed; allowed: bytes, also with a unit: 50GiB, 500MB"),
        (("--keep-days", "-1"), "--keep-days: -1.0 is not allowed; allowed: >= 0"),
    ],
)
def test_bad_arguments_are_one_line(arguments: tuple[str, ...], said: str, typed: Typed) -> None:
    refused = typed("rm", *arguments, "--delete")
    assert refused.returncode == 2 and refused.stderr.startswith(f"error: {said}"), refused.stderr
    assert len(refused.stderr.splitlines()) == 1 and not refused.stdout
