"""Bytes of runs from one listing, and which runs are too old or too much; rm and gc on a real S3 server."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autosparse.flows.sizes import in_words, parse_size
from autosparse.models.errors import SpecError
from autosparse.storage import reports
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths
from autosparse.tasks.keeping.usage import DAY, Usage, to_go, usage
from tests.s3_server import BUCKET, KEY, SECRET, s3_server

NOW = time.time()


def one(name: str, size: int, days: float) -> Usage:
    return Usage(name=name, files=1, size=size, changed=NOW - days * DAY, cleared=False)


RUNS = [one("new", 10, 1), one("old", 30, 9), one("older", 20, 20), one("oldest", 40, 30)]


@pytest.mark.parametrize(
    ("days", "size", "kept", "goes"),
    [
        (None, None, (), []),
        (9.5, None, (), ["oldest", "older"]),
        (0, None, (), ["oldest", "older", "old", "new"]),
        (None, 100, (), []),
        (None, 99, (), ["oldest"]),
        (None, 30, (), ["oldest", "older", "old"]),
        (None, 0, (), ["oldest", "older", "old", "new"]),
        (25, 45, (), ["oldest", "older"]),
        (None, 60, ("oldest",), ["older", "old"]),  # what stays counts: 40 + 10 are left
        (0, None, ("old", "new"), ["oldest", "older"]),
    ],
)
def test_the_oldest_go_first_and_what_is_kept_counts(days: float | None, size: int | None, kept: tuple[str, ...], goes: list[str]) -> None:
    assert [run.name for run in to_go(RUNS, days=days, size=size, kept=kept)] == goes


def test_a_listing_gives_files_bytes_and_the_last_write_of_each_run(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    written = (("a/spec.json", 3, 50), ("a/irp/x/y", 4, 20), ("b/spec.json", 5, 90), ("b/cleared.json", 2, 80))
    for key, size, age in ((f"runs/{key}", size, age) for key, size, age in written):
        store.write(key, bytes(size))
        os.utime(tmp_path / key, (NOW - age,) * 2)
    (tmp_path / f"runs/a/.half.{'0' * 32}").write_bytes(bytes(7))  # a write that nobody finished takes up room too
    os.utime(tmp_path / f"runs/a/.half.{'0' * 32}", (NOW - 30,) * 2)
    store.write("other/file", b"x")
    found = usage(store)
    assert [(run.name, run.files, run.size, run.cleared) for run in found] == [("a", 3, 14, False), ("b", 2, 7, True)]
    assert [run.changed for run in found] == pytest.approx([NOW - 20, NOW - 80], abs=0.01)


@pytest.mark.parametrize(("size", "words"), [(0, "0 bytes"), (999, "999 bytes"), (1234567, "1.2 MB"), (5e15, "5000.0 TB")])
def test_bytes_in_words(size: float, words: str) -> None:
    assert in_words(size) == words


def test_sizes_as_people_type_them() -> None:
    assert [parse_size("x", text) for text in ("7", "1.5KiB", "2 mb", "50GiB")] == [7, 1536, 2_000_000, 50 * 2**30]
    for text in ("", "-1", "1XB", "nan"):
        with pytest.raises(SpecError, match=f"^x: {text!r} is not allowed"):
            parse_size("x", text)


@pytest.mark.s3
def test_rm_status_and_gc_on_s3_free_what_they_name(
    tmp_path: Path, typed: Callable[..., subprocess.CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in (("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET), ("AWS_EC2_METADATA_DISABLED", "true")):
        monkeypatch.setenv(variable, value)
    with s3_server(tmp_path) as (address, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setenv("AUTOSPARSE_STORAGE", root := f"s3://{BUCKET}/team")
        disk, store, run, other = tmp_path / "data" / BUCKET, open_store(root), RunPaths("mine"), RunPaths("mine2")
        for paths in (run, other):
            store.write_json(paths.spec, {})
            reports.save(store, step := paths.round("net", 0, 0), {"density": 1.0})
            store.write(f"{step}/weights.safetensors", bytes(2_000_000))
            store.write(f"{paths.checkpoints(step)[0]}/checkpoint/model.safetensors", bytes(1_000_000))
        upload = store._files.call_s3("create_multipart_upload", Bucket=BUCKET, Key=f"team/{run.root}/x")  # type: ignore[attr-defined]
        sizes = {found["name"]: found["bytes"] for found in json.loads(typed("status", "--json").stdout)["runs"]}
        assert sizes.keys() == {"mine", "mine2"} and min(sizes.values()) > 3_000_000
        before = occupied(disk)
        assert "1.0 MB" in (cleaned := typed("gc", "--older-than", "0", "--delete")).stdout and cleaned.returncode == 0, cleaned.stderr
        assert before - occupied(disk) >= 0.9 * 2_000_000
        assert upload["UploadId"] not in [left.name for left in store.leftovers()]
        before, said = occupied(disk), json.loads(typed("rm", "mine", "--delete", "--json").stdout)
        assert before - occupied(disk) >= 0.9 * said["bytes"] > 1_800_000
        assert store.list(run.root) == [] and len(store.list(other.root)) == 3  # a name that begins alike is another run


def occupied(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
