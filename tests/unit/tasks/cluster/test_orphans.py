"""What is left of a local Ray that was shut down."""

import subprocess

import psutil
import pytest

from autosparse.tasks.cluster import orphans
from tests.pipeline.command_line import wait_for


def test_a_worker_that_does_not_end_with_its_parent_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "END_SECONDS", 0.3)
    with subprocess.Popen(["sh", "-c", "sleep 1000 & sleep 0.01 & wait"], start_new_session=True) as parent:
        wait_for(lambda: len(psutil.Process(parent.pid).children()) == 1)
        (worker,) = orphans.descendants([parent])
        parent.kill()
        orphans.await_end([parent], [worker])
        assert parent.returncode is not None
        wait_for(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, 10)


def test_a_parent_that_is_gone_has_no_descendants() -> None:
    with subprocess.Popen(["true"]) as parent:
        parent.wait()
    assert orphans.descendants([parent]) == []
    orphans.await_end([parent], [])
