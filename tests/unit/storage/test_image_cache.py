import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autosparse.storage.image_cache import cached
from autosparse.storage.image_sources.source import Split


def counting(images: np.ndarray, entry: str = "train-all", key: str = "k") -> Any:
    """A half that says how often it was read."""
    half = SimpleNamespace(reads=0, key=key, entry=entry)

    def read(*, colour: bool) -> Split:
        half.reads += 1
        return Split(np.repeat(images, 3, 1) if colour else images, np.arange(len(images)), tuple("abc"), ("a note",))

    half.read = read
    return half


def test_the_cache_decodes_once_per_entry_colour_and_content(tmp_path: Path):
    half = counting(np.arange(12, dtype=np.uint8).reshape(3, 1, 2, 2), "train-3")
    first, again = (cached(half, tmp_path) for _ in range(2))
    assert half.reads == 1 and first.digest == again.digest and again.split.images.tolist() == first.split.images.tolist()
    assert isinstance(again.split.images, np.memmap) and not again.split.images.flags.writeable
    assert again.split.classes == ("a", "b", "c") and again.split.notes == ("a note",)
    half.entry = "test-3"
    cached(half, tmp_path)
    assert half.reads == 2
    assert [cached(half, tmp_path, colour=True).split.images.shape for _ in range(2)] == [(3, 3, 2, 2)] * 2 and half.reads == 3
    half.key = "other content"
    cached(half, tmp_path)
    cached(half, None)
    assert half.reads == 5


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "split.json"])
def test_a_broken_entry_and_the_left_overs_of_a_killed_process_are_replaced(tmp_path: Path, name: str):
    half = counting(np.zeros((3, 1, 2, 2), np.uint8))
    whole = cached(half, tmp_path)
    (file,) = tmp_path.glob(f"*/train-all/{name}")
    shutil.copytree(file.parent, file.parent.with_name("train-all.partial"))
    for broken in (file.read_bytes()[:-9], b""):
        file.unlink()
        file.write_bytes(broken)
        assert cached(half, tmp_path).digest == whole.digest
    assert half.reads == 3 and not list(tmp_path.glob("*/*.partial"))
    assert cached(half, tmp_path).digest == whole.digest and half.reads == 3


def test_on_a_full_disk_there_is_no_cache_but_there_are_images(tmp_path: Path):
    half, (soft, hard) = counting(np.zeros((3, 1, 2, 2), np.uint8)), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        found = [cached(half, tmp_path) for _ in range(2)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert found[0].digest == found[1].digest and half.reads == 2
    assert not list(tmp_path.glob("*/*.partial")) and cached(half, tmp_path).digest == found[0].digest


WORKER = """
import sys
from pathlib import Path
import numpy as np
from autosparse.storage.image_cache import cached
from autosparse.storage.image_sources.source import Split

folder, me, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

class Half:
    entry = "train-all"

    @property
    def key(self):
        (folder / f"started-{me}").touch()
        return "k"

    def read(self, *, colour):
        (folder / f"read-{me}").touch()
        while len(list(folder.glob("started-*"))) < count:
            pass
        return Split(np.full((100, 3, 8, 8), 7, np.uint8), np.zeros(100, np.int64), ("a",))

found = cached(Half(), folder / "cache")
assert (found.split.images == 7).all() and isinstance(found.split.images, np.memmap)
print(found.digest)
"""


def test_of_several_processes_that_start_at_once_one_decodes(tmp_path: Path):
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    workers = [subprocess.Popen([*command, str(index), "3"], stdout=subprocess.PIPE, text=True, env=environment) for index in range(3)]
    try:
        printed = [worker.communicate(timeout=60)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0, 0] and len(set(printed)) == 1
    assert len(list(tmp_path.glob("read-*"))) == 1 and not list(tmp_path.glob("cache/*/*.partial"))
