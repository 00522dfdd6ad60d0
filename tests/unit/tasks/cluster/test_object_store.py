from pathlib import Path

import pytest

from autosparse.tasks.cluster import object_store
from autosparse.tasks.cluster.object_store import object_store_folder
from autosparse.tasks.services import commands


def test_objects_lie_in_shared_memory_where_it_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = object_store.shared_memory(tmp_path)
    monkeypatch.setattr(object_store, "OBJECT_STORE_BYTES", free // 2)
    assert object_store_folder("/ray", tmp_path) is None
    monkeypatch.setattr(object_store, "OBJECT_STORE_BYTES", 2 * free)  # as in a container: 200 MiB wanted, 64 there
    assert object_store_folder("/ray", tmp_path) == "/ray"


def test_without_shared_memory_they_lie_in_the_folder_of_ray(tmp_path: Path) -> None:
    assert object_store_folder("/ray", tmp_path / "none") == "/ray"


def test_the_ray_of_up_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = dict.fromkeys(commands.PORTS, 1)
    monkeypatch.setattr(commands, "object_store_folder", lambda folder: None)
    assert "--plasma-directory" not in commands.ray_head(ports, folder="/ray", token=None).command
    monkeypatch.setattr(commands, "object_store_folder", lambda folder: folder)
    command = commands.ray_head(ports, folder="/ray", token=None).command
    assert command[command.index("--plasma-directory") + 1] == "/ray"
    monkeypatch.setattr(commands, "machine_slots", lambda: 3)
    command = commands.ray_head(ports, folder="/ray", token=None).command
    assert command[command.index("--num-cpus") + 1] == "3"
