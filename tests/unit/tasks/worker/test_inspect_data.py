from pathlib import Path
from types import SimpleNamespace
from typing import Any

from autosparse.models.specs.run_specs import DataSpec
from autosparse.tasks.worker import inspect_data as worker
from tests.image_sets import RED, encoded, write_folder


def found(folder: Path, files: dict[str, bytes]) -> dict[str, Any]:
    data = DataSpec(name="image_folder", path=str(write_folder(folder / "set", files)))
    look: Any = worker.inspect_data
    job = SimpleNamespace(cache=folder / "home/cache")
    return look.__wrapped__(job, worker.DataInputs(data=data, networks=()))  # the function itself, in no process of its own


def test_a_report_says_what_was_left_out_and_nothing_where_nothing_was(tmp_path: Path):
    files = {"train/a/1.png": encoded(RED), "test/a/1.png": encoded(RED)}
    report = found(tmp_path, files)
    assert report == {"digest": report["digest"], "train": 1, "test": 1, "shape": [3, 1, 2], "classes": ["a"]}, "as before there were notes"
    more = found(tmp_path, files | {"train/a/notes.txt": b""})
    assert more == report | {"notes": [f"{tmp_path}/set/train: 1 files are no images and left out (1 .txt)"]}
