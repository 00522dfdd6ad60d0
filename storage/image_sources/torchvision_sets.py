"""Data sets in the form in which torchvision downloads them."""

import contextlib
import hashlib
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock

from autosparse.models.errors import DataError
from autosparse.storage.image_sources.source import ArrayRows, DataFields, Split, local_folder, without_columns


class Layout(NamedTuple):
    """A class of torchvision.datasets and the folder below the root where it keeps its files."""

    kind: str
    folder: str


SETS = {
    "cifar10": Layout("CIFAR10", "cifar-10-batches-py"),
    "cifar100": Layout("CIFAR100", "cifar-100-python"),
    "mnist": Layout("MNIST", "MNIST"),
    "fashion_mnist": Layout("FashionMNIST", "FashionMNIST"),
}


class TorchvisionSet:
    """One of `SETS` below the folder `path`, downloaded there when asked for."""

    def __init__(self, name: str, data: DataFields) -> None:
        self.name, self.root, self.download = name, local_folder(data.path), data.download
        self.folder = self.root / SETS[name].folder
        without_columns(data)

    def rows(self, split: str) -> ArrayRows:
        """In torchvision's order. The files, over whose names and contents the key is a sha256, are downloaded first where asked for."""
        if not self.folder.is_dir():
            self._open(split)
        return ArrayRows(f"{self.name} {split} {self._files_digest}", lambda: self._read(split))

    def _read(self, split: str) -> Split:
        data = self._open(split)
        images, labels = np.asarray(data.data), np.asarray(data.targets)
        images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
        return Split(np.ascontiguousarray(images), labels.astype(np.int64), tuple(map(str, data.classes)))

    @cached_property
    def _files_digest(self) -> str:
        digest = hashlib.sha256()
        for file in sorted(item for item in self.folder.rglob("*") if item.is_file()):
            with file.open("rb") as opened:
                digest.update(f"{file.relative_to(self.folder)} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
        return digest.hexdigest()

    def _open(self, split: str) -> Any:
        from autosparse.models.networks.torchvision_guard import import_torchvision

        kind = getattr(import_torchvision().datasets, SETS[self.name].kind)
        try:
            with self._lock():
                return kind(self.root, train=split == "train", download=self.download)
        except Exception as error:  # whatever a parser or a download raises, the files cannot be used
            way_out = "put its files there by hand" if self.download else "put its files there or set data.download=true"
            reason = " ".join(str(error).split())
            raise DataError(f"data.path: no complete {self.name} in {self.folder} ({reason}); {way_out}") from error

    def _lock(self) -> contextlib.AbstractContextManager[Any]:
        """Of several workers on one machine only one downloads."""
        if not self.download:
            return contextlib.nullcontext()
        self.root.mkdir(parents=True, exist_ok=True)
        return FileLock(self.root / f".{self.name}.lock")
