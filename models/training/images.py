"""Images as tensors on the device, in memory or decoded as they are needed: batches, statistics, normalisation."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from autosparse.models import seeding
from autosparse.models.errors import not_allowed
from autosparse.models.specs.run_specs import DataSpec
from autosparse.models.training.augmentation import Augmentation, draw, to_device
from autosparse.models.training.examples import Pass

AT_ONCE = 500  # images that are evaluated


class Reader(Protocol):
    """Images that are not in memory."""

    def read(self, rows: Sequence[Tensor]) -> Iterator[Tensor]:
        """uint8 (n, C, H, W) on the CPU for each of the int64 `rows`, in their order. Raises DataError."""
        ...


class ImageBatches(ABC):
    """Batches of images, wherever these are; `labels` int64 (N,) are on the device of the training."""

    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def epoch(self, order: Pass) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of a pass: images (n, C, H, W) float32, augmented, labels (n,) int64."""
        data, drawn = order.data, self._drawn(order)
        rows = order.rows(len(self), self.labels.device)
        for index, (images, labels) in enumerate(self.batches(rows, data, channels_last=order.channels_last)):
            yield drawn[index].apply(images, order.mine) if drawn else images, labels

    def batches(self, rows: Sequence[Tensor], data: DataSpec, *, channels_last: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """The images of each of the rows, normalised, with their labels."""
        for some, pixels in zip(rows, self.pixels(rows), strict=True):
            yield normalise(pixels, data.mean, data.std, channels_last=channels_last), self.labels[some]

    @abstractmethod
    def pixels(self, rows: Sequence[Tensor]) -> Iterator[Tensor]:
        """uint8 (n, C, H, W) for each of the rows, on the device."""

    def _drawn(self, order: Pass) -> list["Augmentation"]:
        """What is drawn for the batches of a pass, on the device: one copy for all, because a copy may wait for it."""
        data = order.data
        if data.augment == "none":
            return []
        streams = (seeding.generator(order.seed, "augment", step) for step in order.steps(len(self)))
        return to_device([draw(data.augment, order.size, data.pad, stream) for stream in streams], self.labels.device)


@dataclass(frozen=True)
class ImageSet(ImageBatches):
    """`images` uint8 (N, C, H, W) and `labels` int64 (N,) on one device; pixels lie channels-last, as batches are used."""

    images: Tensor
    labels: Tensor
    at_once: int | None = AT_ONCE

    def pixels(self, rows: Sequence[Tensor]) -> Iterator[Tensor]:
        """Copied out of memory."""
        return (self.images[some] for some in rows)


@dataclass(frozen=True)
class StreamedSet(ImageBatches):
    """Images that are not in memory, with their labels."""

    reader: Reader
    labels: Tensor
    at_once: int | None = AT_ONCE

    def pixels(self, rows: Sequence[Tensor]) -> Iterator[Tensor]:
        """As they come from the reader."""
        return (pixels.to(self.labels.device, non_blocking=True) for pixels in self.reader.read(rows))


def to_images(images: np.ndarray, labels: np.ndarray, device: torch.device | str = "cpu") -> ImageSet:
    """Copy uint8 (N, C, H, W) and integer (N,) arrays, which may be memory-mapped, to `device`."""
    pixels = torch.from_numpy(np.array(images, dtype=np.uint8)).contiguous(memory_format=torch.channels_last)
    return ImageSet(pixels.to(device), torch.from_numpy(np.array(labels, dtype=np.int64)).to(device))


def channel_statistics(images: Tensor | np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation per channel of uint8 images (N, C, H, W), in units where 255 is 1.

    Computed from exact integer counts, hence the same on every device. A constant channel has the deviation 1.
    """
    sums = []
    for channel in range(images.shape[1]):
        pixels = images[:, channel].reshape(-1)  # an array may be a memory map, of which torch wants no tensor
        counted = torch.bincount(pixels, minlength=256) if isinstance(pixels, Tensor) else np.bincount(pixels, minlength=256)
        counts = counted.tolist()
        first = sum(value * count for value, count in enumerate(counts))
        sums.append((sum(counts), first, sum(value * value * count for value, count in enumerate(counts))))
    return statistics_of(sums)


def statistics_of(sums: Sequence[tuple[int, int, int]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The same of the number of pixels of each channel, their sum and the sum of their squares."""
    means = tuple(first / total / 255 for total, first, _ in sums)
    return means, tuple((total * second - first * first) ** 0.5 / total / 255 or 1.0 for total, first, second in sums)


def normalise(batch: Tensor, mean: tuple[float, ...], std: tuple[float, ...], *, channels_last: bool) -> Tensor:
    """(pixel / 255 - mean) / std as float32 (N, C, H, W) of uint8 images of that shape, in the memory format asked for.

    `mean` and `std` are per channel, of pixels in [0, 1]. Raises SpecError for another number of values.
    """
    count, channels, height, width = batch.shape
    for name, values in (("data.mean", mean), ("data.std", std)):
        if len(values) != channels:
            raise not_allowed(name, list(values), f"one value per channel ({channels})")
    laid_out = batch.permute(0, 2, 3, 1) if channels_last else batch
    # Flat rows against one row of constants: broadcasting over three interleaved channels would run at a third of the speed.
    centre, spread = _constants(mean, std, height * width, channels_last, batch.device)
    flat = laid_out.flatten(1).to(torch.float32).sub_(centre).div_(spread)
    return flat.view(count, height, width, channels).permute(0, 3, 1, 2) if channels_last else flat.view(batch.shape)


@lru_cache(maxsize=32)
def _constants(
    mean: tuple[float, ...], std: tuple[float, ...], pixels: int, channels_last: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """255 * mean and 255 * std for each element of an image, kept on the device because copying them there every step would wait for it."""
    rows = [255 * torch.tensor(values, dtype=torch.float64) for values in (mean, std)]
    flat = [row.repeat(pixels) if channels_last else row.repeat_interleave(pixels) for row in rows]
    return flat[0].to(device, torch.float32), flat[1].to(device, torch.float32)
