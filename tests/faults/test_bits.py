"""Same spec, same seed, same machine: the same bits, undisturbed and across a resume."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.matrix import fault
from tests.faults.runs import RUN, processes_of, read_until, result, run, running

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(900)]
TWO_WORKERS = ("--set", "irp.job.workers=2", "--set", "fanout.job.workers=2", "--set", "scorer.job.workers=2")


@pytest.fixture
def sessions() -> Iterator[Path]:
    """A folder for temporary files that is short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def bits(home: Path) -> dict[str, Any]:
    return result(home / "storage")


def same(undisturbed: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(undisturbed[key] == value for key, value in other.items())


@fault(None, "nothing: the same spec twice", "masks, labels, features, scorer and final weights bit-equal")
def test_two_runs_have_the_same_bits(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert same(undisturbed, bits(tmp_path))


@fault(None, "nothing: two workers twice, one of the runs killed and taken up", "bit-equal as well")
def test_two_workers_have_the_same_bits_across_a_resume(tmp_path: Path) -> None:
    homes = [tmp_path / "whole", tmp_path / "resumed"]
    with running(homes[1], *TWO_WORKERS) as process:
        read_until(process, "[ .. ]", "round 1")
        os.kill(process.pid, signal.SIGKILL)
    for home in homes:
        done = run(home, *TWO_WORKERS)
        assert done.returncode == 0, done.stderr[-3000:]
    assert bits(homes[0]) == bits(homes[1])


@fault(3, "flow process (the driver) killed between rounds", "finished rounds Cached, same bits, no process and no folder of Ray left")
@fault(3, "one bit of a finished round's mask flips on the disk", "the next run ends with the file named; mended, the run goes on")
def test_a_driver_killed_between_rounds(undisturbed: dict[str, Any], tmp_path: Path, sessions: Path) -> None:
    with running(tmp_path, TMPDIR=str(sessions)) as process:
        read_until(process, "[done]", "round 0")
        os.kill(process.pid, signal.SIGKILL)
    source = tmp_path / "storage/runs" / RUN / "irp/lenet300-100-seed0"
    report, mask = source / "round-000/report.json", source / "round-000/mask.safetensors"
    before, whole = report.stat().st_mtime_ns, mask.read_bytes()
    assert list(sessions.glob("autosparse-*"))

    mask.write_bytes(whole[:-1] + bytes([whole[-1] ^ 8]))
    shutil.rmtree(source / "round-001", ignore_errors=True)
    refused = run(tmp_path, TMPDIR=str(sessions))
    assert refused.returncode == 2, refused.stdout[-3000:]
    assert f"{mask}: not an intact safetensors file" in refused.stderr and "Traceback" not in refused.stderr
    assert not (source / "round-001/report.json").exists()
    assert not processes_of(tmp_path)

    mask.write_bytes(whole)
    done = run(tmp_path, TMPDIR=str(sessions))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "[cached] lenet300-100 seed 0 round 0" in done.stdout
    assert report.stat().st_mtime_ns == before
    assert same(undisturbed, bits(tmp_path))
    assert not processes_of(tmp_path)
    assert list(sessions.glob("autosparse-*")) == []
