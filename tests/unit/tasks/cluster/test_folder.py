"""Folders of local Rays: one that is in use stays, one of a killed run goes, what is not ours is left alone."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from autosparse.tasks.cluster import folder as ray_folder
from autosparse.tasks.cluster.folder import RayFolder, remove_dead

HOLD = "from autosparse.tasks.cluster.folder import RayFolder; import time;"
HOLD += " one = RayFolder.make(); print(one.path, flush=True); time.sleep(600)"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


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


def test_one_that_is_removed_by_its_own_run_is_gone(temporary: Path) -> None:
    folder = RayFolder.make()
    assert remove_dead() == 0
    folder.remove()
    assert list(temporary.iterdir()) == []


def test_a_folder_without_our_mark_is_left_alone(temporary: Path) -> None:
    (temporary / "autosparse-of-somebody").mkdir()
    assert remove_dead() == 0 and (temporary / "autosparse-of-somebody").is_dir()
