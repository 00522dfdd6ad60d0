"""Local storage under faults: writers that fail, damaged files, full disks, races, and what killed processes left."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autosparse.flows.recipes import smoke
from autosparse.models.errors import DataError
from autosparse.models.specs.fields import override
from autosparse.storage import reports
from autosparse.storage.feature_table import commit_dataset, open_dataset
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths
from autosparse.tasks.checks import disk_room
from tests.faults.matrix import fault
from tests.faults.runs import RUN, mlflow_states, result, run, with_faults
from tests.faults.storage_process import shard
from tests.pipeline.command_line import ROOT, cli, copy_of, environment

PROCESS = (sys.executable, "-m", "tests.faults.storage_process")
RACES = 10


def process(home: Path, *arguments: object, **more: str) -> subprocess.Popen[str]:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*PROCESS, *map(str, arguments)], env=environment(home, **more), cwd=ROOT, text=True, **pipes)


def said(home: Path, *arguments: object, **more: str) -> str:
    done = process(home, *arguments, **more)
    out, errors = done.communicate(timeout=120)
    assert done.returncode == 0, errors[-2000:]
    return out


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@fault(13, "exception in the middle of writing features: at batch 3, or before the manifest", "no manifest, staging swept, no short file")
@pytest.mark.parametrize("where", ["autosparse.storage.feature_shards:ShardWriter._check", "autosparse.storage.store:LocalStore.create"])
def test_a_writer_that_fails_publishes_nothing(tmp_path: Path, where: str) -> None:
    root, staging = tmp_path / "root", tmp_path / "staging"
    staging.mkdir()
    failing = with_faults({"where": where, "call": 3 if "Shard" in where else 1, "do": "fail"})
    broken = process(tmp_path, "commit", root, staging, 0, **failing)
    broken.communicate(timeout=120)
    assert broken.returncode == 1
    assert not list(root.rglob("_manifest.json"))
    if "Shard" in where:
        assert files(tmp_path) == []
    with pytest.raises(DataError, match="not found"):
        open_dataset(str(next(root.glob("runs/x/features/*"), root)))
    assert open_dataset(committed(root, staging)).rows == 200_000


@fault(14, "features cut short or with one bit flipped after the commit", "refused, the message names file and remedy, never fewer rows")
@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged_features_are_refused(tmp_path: Path, damage: str, opened: bool) -> None:
    uri = committed(tmp_path / "root", tmp_path)
    dataset = open_dataset(uri) if opened else None
    spoil(Path(uri, "part-00000.parquet"), damage)
    with pytest.raises(DataError, match=r"part-00000\.parquet: .*; the same run .*: autosparse rm x --step \S+ --delete$"):
        list((dataset or open_dataset(uri)).batches(0))


def committed(root: Path, staging: Path) -> str:
    return commit_dataset(open_store(str(root)), RunPaths("x").features, [shard(staging / "x.parquet", 0)], {"seed": 0}).uri


def mounted(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    return bool(shutil.which("mount")) and subprocess.run(command, capture_output=True).returncode == 0


def spoil(path: Path, damage: str) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data if damage == "flip" else data[: len(data) // 2])


@pytest.mark.services
@pytest.mark.slow
@pytest.mark.timeout(900)
@fault(14, "the same in a whole run, before its scorer is trained", "Failed with file and remedy; after the remedy the same bits")
def test_no_scorer_is_trained_on_damaged_features(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    home = copy_of(undisturbed["home"], tmp_path)
    there = home / "storage/runs" / RUN
    for step in ("scorer", "fanout", "summary"):
        shutil.rmtree(there / step)
    part = next(there.glob("features/*/part-00000.parquet"))
    spoil(part, "flip")
    refused = run(home)
    assert refused.returncode != 0
    assert str(part) in refused.stderr and not (there / "scorer/report.json").exists()
    made_again(home, refused)
    done = run(home)
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(undisturbed[key] == value for key, value in result(home / "storage").items())


def made_again(home: Path, refused: subprocess.CompletedProcess[str]) -> str:
    """Type the command that a refusal ends with; its step."""
    found = re.search(r"; the same run makes it again after: autosparse (rm \S+ --step (\S+) --delete)$", refused.stderr.strip())
    assert found, refused.stderr
    removed = cli(home, *found[1].split())
    assert removed.returncode == 0, removed.stderr
    return found[2]


SPOILED = (  # from the last step to the first: what each command removes lets the next one be read; folders that are done anew for it
    (r"fanout/.*/density-.*/report\.json", []),
    (r"fanout/.*/scorer/mask-.*\.safetensors", []),
    (r"scorer/scorer\.safetensors", []),
    (r"irp/.*/round-000/mask\.safetensors", ["irp/*/round-001", "features"]),
)


@pytest.mark.services
@pytest.mark.slow
@pytest.mark.timeout(900)
@fault(None, "a mask, a scorer or a report damaged in a finished run", "refused with a command; after it, and the same run, the same bits")
def test_what_is_damaged_is_made_again_by_the_command_that_is_named(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    home = copy_of(undisturbed["home"], tmp_path)
    there = home / "storage/runs" / RUN
    for pattern, undone in SPOILED:
        key = next(key for key in files(there) if re.fullmatch(pattern, key))
        for folder in (found for one in undone for found in there.glob(one)):
            shutil.rmtree(folder)
        spoil(there / key, "cut" if key.endswith(".json") else "flip")
        refused = run(home)
        assert refused.returncode == 2, refused.stderr
        assert made_again(home, refused) in (key, key.rpartition("/")[0])  # the file, or its step
    done = run(home)
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(undisturbed[name] == value for name, value in result(home / "storage").items())


@fault(15, "disk full while anything is written", "one error with bytes needed and free; nothing staged, nothing short")
@pytest.mark.parametrize("limit", ["tmpfs", "file size"])
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, limit: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if limit == "tmpfs" and not mounted(disk):
        pytest.skip("this user cannot mount a small disk")
    try:
        staging = disk / "staging"
        staging.mkdir()
        lines = said(tmp_path, "fill", disk / "root", staging, 0 if limit == "tmpfs" else 2**20).splitlines()
        assert [line.split(":")[0] for line in lines] == ["write", "create", "shard", "checkpoint"]
        assert all(": DataError: " in line and " bytes needed, " in line and line.endswith(" free") for line in lines), lines
        assert not any("2.097.152" in line for line in lines) and sum("2,097,152" in line for line in lines) == 2
        assert [name for name in files(disk) if name != "staging/state.json"] == [
            "staging/model.safetensors",
            "staging/optimizer.safetensors",
        ]
    finally:
        if limit == "tmpfs":
            subprocess.run(["umount", disk], check=True)


@pytest.mark.services
@pytest.mark.slow
@pytest.mark.timeout(900)
@fault(
    15,
    "disk full in a worker in the middle of a round",
    "Failed with bytes needed and free, not retried; with room again the same bits",
    simulated="the write of one checkpoint fails with ENOSPC",
)
def test_a_run_on_a_full_disk_fails_and_goes_on(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    full = {"where": "autosparse.storage.checkpoints:_put", "call": 4, "do": "fail", "errno": "ENOSPC", "once": str(tmp_path / "full")}
    failed = run(tmp_path, timeout=400, **with_faults(full))
    assert failed.returncode != 0
    assert "bytes needed" in failed.stderr and "free" in failed.stderr, failed.stderr[-3000:]
    assert (tmp_path / "full").exists()
    assert mlflow_states(tmp_path)[RUN] == "FAILED"
    done = run(tmp_path, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(undisturbed[key] == value for key, value in result(tmp_path / "storage").items())
    assert open_store(str(tmp_path / "storage")).leftovers() == []


@fault(15, "a disk that clearly has too little room for a run", "refused before anything starts", simulated="the check alone, given a size")
def test_too_little_room_is_told_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, paths, spec = open_store(str(tmp_path)), RunPaths(RUN), smoke()
    needed = disk_room.bytes_of(spec)
    twice = disk_room.bytes_of(override(spec, {"irp.seeds": [0, 1]})) - disk_room.bytes_of(override(spec, {"irp.seeds": [0]}))
    assert twice >= 4 * spec.irp.rounds * 100_000
    disk_room.check_room(store, paths, spec)
    monkeypatch.setattr(disk_room, "free_bytes", lambda path: needed - 1)
    with pytest.raises(DataError, match=f"has {needed - 1:,} bytes free; allowed: about {needed:,} for the rest of this run$"):
        disk_room.check_room(store, paths, spec)
    store.write(f"{paths.root}/irp/x.bin", b"x")
    disk_room.check_room(store, paths, spec)


@fault(17, "two runs race for one name, or one data set's place, with other content", "exactly one wins; the loser fails with both digests")
@pytest.mark.parametrize("what", ["name", "manifest"])
def test_of_two_writers_exactly_one_wins(tmp_path: Path, what: str) -> None:
    for first, second in raced(tmp_path, str(tmp_path / "root"), what):
        assert sorted(line.split(":")[0] for line in (first, second)) == ["ConflictError", "won"], (first, second)
    assert not [name for name in files(tmp_path / "root") if "/." in name]


def raced(home: Path, root: str, what: str, **more: str) -> list[tuple[str, str]]:
    """What both processes said of each race; the line of a loser names two digests."""
    both = [process(home, "race", root, what, mine, RACES, **more) for mine in (2, 3)]
    found = []
    try:
        for _ in range(RACES):
            for one in both:
                assert one.stdout and one.stdout.readline().strip() == "ready"
            for one in both:
                assert one.stdin
                one.stdin.write("go\n")
                one.stdin.flush()
            found.append(tuple(one.stdout.readline().strip() for one in both if one.stdout))
    finally:
        for one in both:
            one.kill()
            one.communicate()
    for line in (line for pair in found for line in pair if line != "won"):
        assert len({word for word in line.replace(",", " ").replace("(", " ").split() if is_digest(word)}) == 2, line
    return found


def is_digest(word: str) -> bool:
    word = word.strip("();:")
    return len(word) in (12, 16, 32) and set(word) <= set("0123456789abcdef")


@fault(None, "a killed run's leftovers on a local disk", "`autosparse gc` lists them, and removes them only when told to")
def test_gc_of_a_local_storage(tmp_path: Path, typed: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    storage = tmp_path / "home/storage"
    store, paths = open_store(str(storage)), RunPaths(RUN)
    done, open_step = paths.round("net", 0, 0), paths.round("net", 0, 1)
    reports.save(store, done, {"density": 1.0})
    for step in (done, open_step):
        store.write(f"{paths.training}/{paths.job(step)}-b/checkpoint/state.json", b"{}")
    old, young, foreign = (storage / name for name in (f".x.bin.{'a' * 32}", f".y.bin.{'b' * 32}", ".x.bin.partial"))
    for path in (old, young, foreign):
        path.write_bytes(b"half")
    for path in (old, foreign, *(storage / "runs").rglob("*")):
        os.utime(path, (time.time() - 25 * 3600,) * 2)
    before = files(storage)
    listed = typed("gc")
    assert listed.returncode == 0, listed.stderr
    assert "2 in " in listed.stdout and "6 bytes; --delete" in listed.stdout  # 4 of a staging file, 2 of a checkpoint
    assert "/x.bin" in listed.stdout and paths.job(done) in listed.stdout
    assert "/y.bin" not in listed.stdout and paths.job(open_step) not in listed.stdout and "partial" not in listed.stdout
    plain = json.loads(typed("gc", "--json").stdout)
    assert not plain["removed"] and sorted(one["bytes"] for one in plain["orphans"]) == [2, 4]
    assert files(storage) == before
    assert typed("gc", "--delete").returncode == 0
    gone = {old.name, f"{paths.training}/{paths.job(done)}-b/checkpoint/state.json"}
    assert set(before) - set(files(storage)) == gone
    assert typed("gc", "--older-than", "0", "--delete").returncode == 0
    assert not young.exists() and foreign.exists() and (storage / paths.training / f"{paths.job(open_step)}-b").exists()
