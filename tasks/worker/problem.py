"""What a network learns, opened on this machine: images or a task of one's own, its loss and metrics, and what networks must fit."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autosparse.models.imported import is_outside
from autosparse.models.networks.build import build_network
from autosparse.models.networks.calls import Shape
from autosparse.models.specs.run_specs import DataSpec, NetworkSpec, TrainSpec
from autosparse.models.training.examples import Examples
from autosparse.models.training.images import StreamedSet, channel_statistics, statistics_of, to_images
from autosparse.models.training.objective import Classification, Objective
from autosparse.models.training.own_task import OwnTask, find_task
from autosparse.storage.image_datasets import ImageArrays, open_images
from autosparse.storage.image_loader import ImageLoader, SplitReader
from autosparse.storage.image_sources.hub import PREFIX
from autosparse.storage.streamed_images import StreamedImages, Tell
from autosparse.tasks.settings import load as load_settings
from autosparse.tasks.worker.loaders import kept


@dataclasses.dataclass(frozen=True)
class _Images:
    """The classification of images, wherever they are."""

    arrays: ImageArrays | StreamedImages
    spec: DataSpec
    own: None = None

    @cached_property
    def data(self) -> DataSpec:
        """Mean and std are measured on the training images where the spec leaves them out."""
        if self.spec.mean and self.spec.std:
            return self.spec
        arrays = self.arrays
        mean, std = statistics_of(arrays.sums) if isinstance(arrays, StreamedImages) else channel_statistics(arrays.train_images)
        return dataclasses.replace(self.spec, mean=tuple(mean), std=tuple(std))

    @property
    def digest(self) -> str:
        """Of the decoded images and labels."""
        return self.arrays.digest

    @property
    def shape(self) -> Shape:
        """(channels, height, width) of every image."""
        return self.arrays.image_shape

    @property
    def fit(self) -> dict[str, Any]:
        """Image shape and number of classes."""
        return {"image_shape": self.arrays.image_shape, "num_classes": len(self.arrays.classes)}

    @property
    def sizes(self) -> dict[str, int]:
        """Images per split."""
        return {"train": len(self.arrays.train_labels), "test": len(self.arrays.test_labels)}

    @property
    def facts(self) -> dict[str, Any]:
        """Image shape and class names, and `notes` where something was left out."""
        notes = {"notes": list(self.arrays.notes)} if self.arrays.notes else {}
        return {"shape": list(self.arrays.image_shape), "classes": list(self.arrays.classes), **notes}

    def objective(self, train: TrainSpec) -> Objective:
        """Cross entropy and accuracy."""
        return Classification(label_smoothing=train.label_smoothing)


@dataclasses.dataclass(frozen=True)
class ImageProblem(_Images):
    """Images in memory."""

    arrays: ImageArrays

    def examples(self, split: str, device: torch.device | str) -> Examples:
        """The images in the memory of the device."""
        arrays = self.arrays
        pixels, labels = (arrays.train_images, arrays.train_labels) if split == "train" else (arrays.test_images, arrays.test_labels)
        return to_images(pixels, labels, device)

    def few(self, rows: Sequence[Tensor], device: torch.device | str, *, channels_last: bool) -> Iterator[Any]:
        """A batch for each of the rows of training images, not augmented, without the others in memory."""
        images, labels = self.arrays.train_images, self.arrays.train_labels
        for some in (chosen.numpy() for chosen in rows):
            loaded = to_images(images[some], labels[some], device)
            yield from loaded.batches([torch.arange(len(loaded))], self.data, channels_last=channels_last)


@dataclasses.dataclass(frozen=True)
class StreamedProblem(_Images):
    """Images that do not fit into memory, decoded as they are needed; the same batches, bit for bit."""

    arrays: StreamedImages
    loaders: dict[bool, ImageLoader] = dataclasses.field(default_factory=dict, compare=False)  # with and without pinned memory

    def examples(self, split: str, device: torch.device | str) -> Examples:
        """The labels in the memory of the device; other processes, which both splits share, decode images for it."""
        pin = torch.device(device).type == "cuda"
        if pin not in self.loaders:
            self.loaders[pin] = kept(ImageLoader(self.arrays.packs, processes=processes(), pin=pin))
            self.loaders[pin].start(split)
        return self._set(split, SplitReader(self.loaders[pin], split), device)

    def few(self, rows: Sequence[Tensor], device: torch.device | str, *, channels_last: bool) -> Iterator[Any]:
        """A batch for each of the rows of training images, not augmented, decoded in this process."""
        reader = SplitReader(ImageLoader(self.arrays.packs, processes=0), "train")
        yield from self._set("train", reader, device).batches(rows, self.data, channels_last=channels_last)

    def _set(self, split: str, reader: SplitReader, device: torch.device | str) -> StreamedSet:
        labels = self.arrays.train_labels if split == "train" else self.arrays.test_labels
        return StreamedSet(reader, torch.from_numpy(labels).to(device))


@dataclasses.dataclass(frozen=True)
class OwnProblem:
    """A task of one's own."""

    own: OwnTask
    data: DataSpec

    @property
    def digest(self) -> str:
        """Of the examples, or as the task says."""
        return self.own.digest

    @property
    def shape(self) -> Shape:
        """The inputs of one example."""
        return self.own.example

    @property
    def fit(self) -> dict[str, Any]:
        """The inputs of one example and the keywords that the task has for builders."""
        return {"image_shape": self.own.example, "num_classes": None, "given": dict(self.own.keywords)}

    @property
    def sizes(self) -> dict[str, int]:
        """Examples per split."""
        return {split: len(self.own.examples(split)) for split in ("train", "test")}

    @property
    def facts(self) -> dict[str, Any]:
        """The metric that counts."""
        return {"metric": self.own.metric.to_plain()}

    def objective(self, train: TrainSpec) -> Objective:
        """The task itself."""
        return self.own

    def examples(self, split: str, device: torch.device | str) -> Examples:
        """One split, on a device."""
        return self.own.examples(split, device)

    def few(self, rows: Sequence[Tensor], device: torch.device | str, *, channels_last: bool) -> Iterator[Any]:
        """A batch for each of the rows of training examples."""
        return self.own.examples("train", device).batches(rows, self.data, channels_last=channels_last)


Problem = ImageProblem | StreamedProblem | OwnProblem  # a data set of a spec with everything that a training asks of it


def is_own(data: DataSpec) -> bool:
    """Whether it names a task of one's own, `package.module:task`."""
    return is_outside(data.name) and not data.name.startswith(PREFIX)


def open_problem(data: DataSpec, cache: Path | None, tell: Tell = lambda message: None) -> Problem:
    """The problem of a data spec; images are decoded, or looked through, once per node and kept in `cache`. `tell` hears of long work.

    Raises SpecError, DataError.
    """
    if is_own(data):
        return OwnProblem(find_task(data.name, data.path), data)
    arrays = open_images(data, cache, budget=load_settings().image_memory, processes=processes(), tell=tell)
    return StreamedProblem(arrays, data) if isinstance(arrays, StreamedImages) else ImageProblem(arrays, data)


def processes() -> int:
    """How many decode: as many as the job has CPUs, which is what its threads are set to."""
    return torch.get_num_threads()


def fit_of(data: DataSpec, report: Mapping[str, Any]) -> dict[str, Any]:
    """What networks must fit, by the report of `inspect_data`; images need not be opened again, a task of one's own is."""
    if is_own(data):
        return open_problem(data, None).fit
    channels, height, width = map(int, report["shape"])
    return {"image_shape": (channels, height, width), "num_classes": len(report["classes"])}


def initial_network(network: NetworkSpec, problem: Problem, seed: int) -> nn.Module:
    """The network of a spec at step 0: a function of spec, what it must fit and seed alone."""
    return build_network(network, seed=seed, **problem.fit)
