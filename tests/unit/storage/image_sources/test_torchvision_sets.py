import hashlib
import pickle
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest

from autosparse.models.errors import DataError
from autosparse.models.networks.torchvision_guard import import_torchvision
from autosparse.models.specs.run_specs import DataSpec
from autosparse.storage.image_datasets import ImageArrays, load_images


def load(name: str, path: Path, cache: Path | None = None, *, download: bool = False, train_limit: int | None = None) -> ImageArrays:
    return load_images(DataSpec(name=name, path=str(path), download=download, train_limit=train_limit), cache)


def write_mnist(root: Path, name: str = "MNIST") -> Path:
    """Idx files: big-endian magic 0x0800 + dimensions, sizes, bytes. Train = two images of 2 x 3 pixels, test = one."""
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    for split, count in (("train", 2), ("t10k", 1)):
        sizes = b"".join(size.to_bytes(4, "big") for size in (count, 2, 3))
        (raw / f"{split}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sizes + bytes(range(6 * count)))
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + count.to_bytes(4, "big") + bytes([5, 9][:count]))
    return root


def test_mnist_through_torchvision(tmp_path: Path):
    data = load("mnist", write_mnist(tmp_path), cache=tmp_path / "cache")
    assert data.train_images.tolist() == [[[[0, 1, 2], [3, 4, 5]]], [[[6, 7, 8], [9, 10, 11]]]]
    assert data.train_labels.tolist() == [5, 9] and data.test_labels.tolist() == [5]
    assert len(data.classes) == 10 and data.classes[5] == "5 - five"
    assert load("mnist", tmp_path, train_limit=1).train_labels.tolist() == [5]
    (tmp_path / "MNIST/raw/train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + (2).to_bytes(4, "big") + b"\x01\x02")
    assert load("mnist", tmp_path, cache=tmp_path / "cache").train_labels.tolist() == [1, 2], "changed files are decoded again"


def test_cifar10_through_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Rows of the published batches are 1,024 red, 1,024 green and 1,024 blue bytes, line by line."""
    folder, kind = tmp_path / "cifar-10-batches-py", import_torchvision().datasets.CIFAR10
    pixels = np.arange(2 * 3072, dtype=np.uint32).astype(np.uint8).reshape(2, 3072)
    contents = {
        "one": {"data": pixels, "labels": [3, 1]},
        "two": {"data": pixels[:1], "labels": [0]},
        "meta": {"names": list("abcdefghij")},
    }
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
    sums = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in contents}
    monkeypatch.setattr(kind, "train_list", [["one", sums["one"]]])
    monkeypatch.setattr(kind, "test_list", [["two", sums["two"]]])
    monkeypatch.setattr(kind, "meta", {"filename": "meta", "key": "names", "md5": sums["meta"]})
    data = load("cifar10", tmp_path)
    assert data.train_images.shape == (2, 3, 32, 32) and data.train_images.flags.c_contiguous
    assert data.train_images[1, 2, 30, 4] == pixels[1, 2 * 1024 + 30 * 32 + 4]
    assert data.train_labels.tolist() == [3, 1] and data.test_labels.tolist() == [0] and data.classes == tuple("abcdefghij")
    (folder / "two").write_bytes(b"altered")
    with pytest.raises(DataError, match=rf"^data.path: no complete cifar10 in {folder} \("):
        load("cifar10", tmp_path)


FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python", "fashion_mnist": "FashionMNIST"}


@pytest.mark.parametrize(("name", "folder"), FOLDERS.items())
def test_a_set_that_is_not_there_says_what_to_do(tmp_path: Path, name: str, folder: str):
    message = rf"^data.path: no complete {name} in {tmp_path / folder} \(.*\); put its files there or set data.download=true$"
    with pytest.raises(DataError, match=message):
        load(name, tmp_path, cache=tmp_path / "cache")
    (tmp_path / folder).mkdir()
    with pytest.raises(DataError, match=message):
        load(name, tmp_path)


def test_download_only_when_asked_and_a_failed_one_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kind = import_torchvision().datasets.FashionMNIST
    root, cache = tmp_path / "new", tmp_path / "cache"

    def fetch(self: Any) -> None:
        if not self._check_exists():
            write_mnist(root, "FashionMNIST")

    def fail(self: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(kind, "download", fail)
    with pytest.raises(DataError, match=r"\(<urlopen error no route to host>\); put its files there by hand$"):
        load("fashion_mnist", root, cache, download=True)
    monkeypatch.setattr(kind, "download", fetch)
    with pytest.raises(DataError, match="data.download=true"):
        load("fashion_mnist", root, cache)
    assert load("fashion_mnist", root, cache, download=True).train_labels.tolist() == [5, 9]
