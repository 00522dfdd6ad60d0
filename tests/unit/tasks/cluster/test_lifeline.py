"""The connection by which a driver learns that its Ray is gone."""

import socket
from pathlib import Path

import pytest

from autosparse.models.errors import JobError
from autosparse.tasks.cluster.lifeline import Lifeline


def test_it_holds_as_long_as_the_other_side_lives_and_not_a_moment_longer(tmp_path: Path) -> None:
    path = str(tmp_path / "raylet")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        lifeline = Lifeline(path, "ray: gone")
        other, _ = listener.accept()
        lifeline.check()
    lifeline.check()  # whoever listens: the connection counts
    other.close()
    for _ in range(2):
        with pytest.raises(JobError, match="^ray: gone$"):
            lifeline.check()
    lifeline.close()
    with pytest.raises(JobError, match="^the run was interrupted$"):
        lifeline.check()


def test_another_ray_at_the_same_address_is_not_taken_for_the_first(tmp_path: Path) -> None:
    path = tmp_path / "raylet"
    with socket.socket(socket.AF_UNIX) as first:
        first.bind(str(path))
        first.listen()
        lifeline = Lifeline(str(path), "ray: gone")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as second:
        second.bind(str(path))
        second.listen()
        with pytest.raises(JobError):
            lifeline.check()
    lifeline.close()


def test_nobody_there_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Lifeline(str(tmp_path / "none"), "")
