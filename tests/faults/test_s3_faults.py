"""A real S3 server behind a proxy that is busy, breaks off, is slow or keeps still (fault_proxy.py)."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autosparse.models.errors import ServiceError
from autosparse.storage import s3_retries, s3_store
from autosparse.storage.open_store import open_store
from autosparse.storage.store import Store
from tests.faults.fault_proxy import FaultProxy, fault_proxy
from tests.faults.matrix import fault
from tests.faults.runs import RUN, holding, mlflow_states, processes_of, result, run
from tests.faults.test_storage import PROCESS, raced
from tests.pipeline.command_line import ROOT, environment, wait_for
from tests.s3_server import BUCKET, KEY, SECRET, s3_server

pytestmark = pytest.mark.s3
MINE = f"s3://{BUCKET}/team/mine"
SLOW_DOWN_S = 30


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as (address, _):
        yield address


@pytest.fixture
def proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with fault_proxy(server, conditional=True) as proxy:
        for name, value in settings(proxy).items():
            monkeypatch.setenv(name, value)
        yield proxy


@pytest.fixture
def store(proxy: FaultProxy) -> Iterator[Store]:
    store = open_store(MINE)
    yield store
    proxy.rules.clear()
    store.delete("x")
    assert store.leftovers() == []


def settings(proxy: FaultProxy) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": proxy.address,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def large(folder: Path, parts: int = 5) -> Path:
    path = folder / "large.bin"
    path.write_bytes(np.random.default_rng(0).bytes(parts * s3_store.PART_BYTES - 1))
    return path


def in_pieces(store: Store, key: str) -> bytes:
    """As Parquet files are read: a request for each piece."""
    with store.open(key) as file:
        return b"".join(iter(lambda: file.read(s3_store.PART_BYTES), b""))


@pytest.mark.slow
@fault(11, "S3 answers 503 SlowDown for 30 s", "waited for with growing random pauses and one warning a minute; then it goes on")
def test_half_a_minute_of_slow_down(store: Store, proxy: FaultProxy, caplog: pytest.LogCaptureFixture) -> None:
    s3_retries._warned.clear()
    rule, start = proxy.fault("busy", seconds=SLOW_DOWN_S), time.monotonic()
    store.write("x/a", b"content")
    assert store.read("x/a") == b"content"
    assert SLOW_DOWN_S < time.monotonic() - start < 100
    pauses = np.diff(rule.struck)
    assert 3 <= len(rule.struck) <= 20
    assert pauses.max() > 3 and len(set(pauses.round(1))) > 1
    assert len([record for record in caplog.records if record.name == s3_retries.__name__]) <= 2


@fault(11, "S3 stays busy, broken, silent or breaks off", "one error after a fixed time, with operation, key and time tried")
@pytest.mark.parametrize("what", ["busy", "broken", "stall", "reset", "lost_reply"])
def test_a_hard_cap(store: Store, proxy: FaultProxy, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATIENCE_S", "UNREACHABLE_S"):
        monkeypatch.setattr(s3_retries, name, 1)
    monkeypatch.setattr(s3_store, "READ_S", 1)
    proxy.fault(what, contains="x/a")
    start = time.monotonic()
    with pytest.raises(ServiceError, match=rf"^S3: write of {MINE}/x/a at {proxy.address} failed after \d+ s of trying \(\w+\)$"):
        store.write("x/a", b"content")
    assert time.monotonic() - start < 60


@fault(11, "a few SlowDowns, 500s, resets, replies that get lost, bodies that break off or trickle, a stall", "survived")
@pytest.mark.parametrize(
    ("what", "count"), [("busy", 3), ("broken", 3), ("reset", 3), ("lost_reply", 2), ("reset_body", 1), ("slow", 4), ("stall", 1)]
)
def test_short_faults_are_survived(
    store: Store, proxy: FaultProxy, what: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_store, "READ_S", 2)
    local = large(tmp_path)
    rules = [proxy.fault(what, count=count, method="PUT", contains="x/large"), proxy.fault(what, count=count, method="GET", contains="x/")]
    store.upload(local, "x/large.bin")
    assert in_pieces(store, "x/large.bin") == local.read_bytes()
    proxy.fault(what, count=1, method="GET", contains="x/small")
    store.write("x/small", b"small" * 1000)
    assert store.read("x/small") == b"small" * 1000
    assert store.list("x") == ["x/large.bin", "x/small"]
    assert all(len(rule.struck) == count for rule in rules)


@fault(11, "the reply to a create-only write gets lost", "what was written by the first try counts; no false conflict")
def test_a_lost_reply_is_no_conflict(store: Store, proxy: FaultProxy) -> None:
    proxy.fault("lost_reply", count=1, method="PUT", contains="x/created")
    store.create("x/created", b"mine")
    assert store.read("x/created") == b"mine"
    assert [request for request in proxy.asked if request[0] == "PUT"] == [("PUT", f"/{BUCKET}/team/mine/x/created")] * 2


@fault(
    12,
    "process killed during a multipart upload, after part 2",
    "nothing visible; a retry succeeds; gc aborts the orphan",
)
def test_an_upload_killed_between_parts(
    store: Store, proxy: FaultProxy, tmp_path: Path, typed: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    local = large(tmp_path)
    rule = proxy.fault("stall", contains="partNumber=3")
    there = settings(proxy) | {"AUTOSPARSE_STORAGE": MINE}
    command = [*PROCESS, "upload", MINE, str(local), "x/large.bin"]
    with subprocess.Popen(command, env=environment(tmp_path, **there), cwd=ROOT) as process:
        wait_for(lambda: bool(rule.struck) and sum("partNumber" in path for _, path in proxy.asked) >= 4)
        os.kill(process.pid, signal.SIGKILL)
    proxy.rules.clear()
    assert not store.exists("x/large.bin") and store.list() == []
    neighbour = open_store(f"s3://{BUCKET}/team/mine2")
    foreign = neighbour._files.call_s3("create_multipart_upload", Bucket=BUCKET, Key="team/mine2/x/other.bin")  # type: ignore[attr-defined]
    store.upload(local, "x/large.bin")
    listed = typed("gc", "--older-than", "0", **there)
    assert listed.stdout.count("upload") == 1 and f"{MINE}/x/large.bin" in listed.stdout, listed.stdout + listed.stderr
    assert len(store.leftovers()) == 1
    assert typed("gc", "--older-than", "0", "--delete", **there).returncode == 0
    assert store.leftovers() == [] and in_pieces(store, "x/large.bin") == local.read_bytes()
    assert [found.name for found in neighbour.leftovers()] == [foreign["UploadId"]]
    neighbour.discard(neighbour.leftovers()[0])


@fault(
    17,
    "the same race on S3",
    "exactly one wins; the loser fails with both digests",
    simulated="the proxy answers `If-None-Match`, which `rclone serve s3` ignores",
)
def test_of_two_writers_on_s3_exactly_one_wins(proxy: FaultProxy, tmp_path: Path) -> None:
    for first, second in raced(tmp_path, f"{MINE}-race", "manifest", **settings(proxy)):
        assert sorted(line.split(":")[0] for line in (first, second)) == ["ConflictError", "won"], (first, second)


@pytest.mark.services
@pytest.mark.slow
@pytest.mark.timeout(900)
@fault(11, "a whole run on S3 with bursts of SlowDown, resets, bodies that break off, a stall", "the same bits; no upload left")
def test_a_run_on_bad_s3(undisturbed: dict[str, Any], proxy: FaultProxy, tmp_path: Path) -> None:
    root = f"s3://{BUCKET}/team/run"
    rules = [
        proxy.fault("busy", count=4, contains="round-000/weights"),
        proxy.fault("reset", count=2, method="PUT", contains="round-000/mask"),
        proxy.fault("reset_body", count=1, method="GET", contains="initial.safetensors"),
        proxy.fault("stall", count=1, method="PUT", contains="round-001/report"),
        proxy.fault("lost_reply", count=1, method="PUT", contains="_manifest.json"),
        proxy.fault("slow", count=2, method="GET", contains="part-00000.parquet"),
        proxy.fault("broken", count=3, contains="scorer.safetensors"),
        proxy.fault("busy", seconds=8, contains="/training/fanout"),
    ]
    done = run(tmp_path, timeout=600, AUTOSPARSE_STORAGE=root, **settings(proxy))
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(rule.struck for rule in rules), [rule for rule in rules if not rule.struck]
    assert all(undisturbed[key] == value for key, value in result(root).items())
    store = open_store(root)
    assert store.leftovers() == [] and not [key for key in store.list() if "/training/" in key]
    assert SECRET not in done.stdout + done.stderr
    assert holding(tmp_path, [SECRET]) == [] and not [key for key in store.list() if SECRET.encode() in store.read(key)]


@pytest.mark.services
@pytest.mark.slow
@pytest.mark.timeout(900)
@fault(11, "S3 takes no checkpoint any more, for good", "the run ends Failed with one error: operation, key, time tried; no process left")
def test_a_run_on_s3_that_stays_away(proxy: FaultProxy, tmp_path: Path) -> None:
    proxy.fault("reset", contains="/training/")
    done = run(tmp_path, timeout=800, AUTOSPARSE_STORAGE=f"s3://{BUCKET}/team/gone", **settings(proxy))
    assert done.returncode == 2, done.stdout[-3000:]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and len(errors[0]) < 600, done.stderr[-3000:]
    named = r"^error: job \S+-round-000: \w+Error: .*/team/gone/runs/small/training/\S+; given up after \d+ s of trying;"
    assert re.search(named, errors[0]), errors[0]
    assert "Traceback" not in done.stderr
    assert mlflow_states(tmp_path)[RUN] == "FAILED"
    assert not processes_of(tmp_path)
