"""Folders of local Rays: one that is in use stays, one of a killed run goes, what is not ours is left alone."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from autosparse.models.errors import ServiceError
from autosparse.tasks.cluster import folder as ray_folder
from autosparse.tasks.cluster.folder import RayFolder, remove_dead

HOLD = "from autosparse.tasks.cluster.folder import RayFolder; import time;"
HOLD += " one = RayFolder.make(); print(one.path, flush=True); time.sleep(600)"


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """TMPDIR, short enough for the sockets of a Ray."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setattr(ray_folder, "OTHERS", ())  # what others left there
        yield Path(folder)


def test_a_folder_goes_once_its_process_is_dead_and_not_before(temporary: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(temporary)}
    )
    try:
        path = Path(process.stdout.readline().strip())
        (path / ray_folder.RAY / "session").mkdir(parents=True)
        assert path.parent == temporary
        assert remove_dead() == 0 and (path / ray_folder.RAY / "session").is_dir()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert remove_dead() == 1 and not path.exists()
    finally:
        process.kill()
        process.communicate()


def test_who_writes_to_the_folder_of_a_dead_run_is_ended_and_nobody_else(temporary: Path) -> None:
    folder = RayFolder.make()
    (folder.path / ray_folder.RAY).mkdir()
    programs = [_titled(temporary, title) for title in ("ray::DashboardAgent", "tail")]
    with (folder.path / ray_folder.RAY / "agent.log").open("w") as log:
        writers = [subprocess.Popen(["sleep", "600"], executable=program, stdout=log) for program in programs]
    try:
        assert remove_dead() == 0 and all(writer.poll() is None for writer in writers)
        folder._lock.release()  # as by the death of its process
        assert remove_dead() == 1 and not folder.path.exists()
        assert writers[0].wait(10) == -signal.SIGKILL and writers[1].poll() is None
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()


def _titled(folder: Path, title: str) -> str:
    """A program of that name."""
    return str(shutil.copy(str(shutil.which("sleep")), folder / title))


def test_one_that_is_removed_by_its_own_run_is_gone(temporary: Path) -> None:
    folder = RayFolder.make()
    assert remove_dead() == 0
    folder.remove()
    assert list(temporary.iterdir()) == []


def test_a_folder_without_our_mark_is_left_alone(temporary: Path) -> None:
    (temporary / "autosparse-of-somebody").mkdir()
    assert remove_dead() == 0 and (temporary / "autosparse-of-somebody").is_dir()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("l" * 40, "has a name of 45 bytes, and Ray's sockets leave room for 19"),
        ("ü" * 8, "has a name of 21 bytes, and Ray's sockets leave room for 19"),
        ("missing", "cannot be written to (No such file or directory)"),
        ("file", "cannot be written to (Not a directory)"),
    ],
)
def test_a_folder_that_will_not_do_is_named_and_another_one_taken(name: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    named = Path("/tmp", name)
    monkeypatch.setenv("TMPDIR", str(named))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(ray_folder, "OTHERS", ("/var/tmp",))
    if name == "file":
        monkeypatch.setenv("TMPDIR", "/etc/hostname")
        named = Path("/etc/hostname")
    found = ray_folder.place()
    assert found.refused[str(named)] == reason
    assert found.folder in ("/tmp", "/var/tmp")


def test_a_full_folder_is_not_taken(temporary: Path) -> None:
    free = shutil.disk_usage(temporary).free
    assert ray_folder.why_not(str(temporary), room=2 * free) == f"is full: {free / 2**20:.0f} MiB free"
    assert ray_folder.why_not(str(temporary)) is None


def test_without_any_place_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_folder, "_candidates", lambda: ["/nowhere", "/" + "l" * 50])
    with pytest.raises(ServiceError, match=r"^TMPDIR: [^\n]*/nowhere cannot be written to[^\n]*51 bytes[^\n]*export TMPDIR=[^\n]*$"):
        RayFolder.make()


def test_the_longest_path_that_a_ray_makes_is_counted(temporary: Path) -> None:
    # as in ray/_private/node.py, with the longest process id that Linux gives
    longest = f"{'t' * ray_folder.LONGEST}/autosparse-12345678/ray/session_2026-11-29_12-43-31_123456_4194304/sockets/plasma_store"
    assert len(longest) == 107
