"""Augmentation of whole batches by a passed generator, and what of it each of several ranks does.

It acts on normalised images and pads with zero, that is with the mean colour. It is drawn for the global batch and applied to a share of
its rows, so that the ranks of a distributed training agree with a single process.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from autosparse.models.errors import not_allowed

KINDS = ("none", "shift", "shift_flip", "crop_flip", "resized_crop_flip")
FLIP_PROBABILITY = 0.5
AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of resized crops, as torchvision has them


@dataclass(frozen=True)
class Augmentation:
    """What was drawn for one global batch: offsets are (row, column) in [0, 2 * pad] into the padded image."""

    pad: int = 0
    offset: tuple[int, int] | None = None  # one for the whole batch
    offsets: Tensor | None = None  # int64 (batch, 2), one per image
    flips: Tensor | None = None  # bool (batch,)
    boxes: Tensor | None = None  # float32 (batch, 4): left, top, width and height of a window, as shares of the image

    def apply(self, images: Tensor, rows: slice = slice(None)) -> Tensor:
        """Augment normalised float images (n, C, H, W), which are the `rows` of the batch this was drawn for.

        The memory format is kept. Raises SpecError when `pad` is not smaller than the image.
        """
        height, width = images.shape[-2:]
        if self.pad >= min(height, width):
            raise not_allowed("data.pad", self.pad, f"< {min(height, width)}, the image size")
        if self.offset is not None:
            down, right = self.pad - self.offset[0], self.pad - self.offset[1]
            images = functional.pad(images, (right, -right, down, -down))
        if self.offsets is not None:
            images = _crops(images, self.offsets[rows].to(images.device, non_blocking=True), self.pad)
        if self.boxes is not None:
            images = _windows(images, self.boxes[rows].to(images.device, non_blocking=True))
        if self.flips is not None:
            chosen = self.flips[rows].to(images.device, non_blocking=True)
            images = torch.where(chosen[:, None, None, None], images.flip(3), images)
        return images


def _crops(images: Tensor, offsets: Tensor, pad: int) -> Tensor:
    """One window of the original size per zero-padded image, at its own offset."""
    height, width = images.shape[-2:]
    windows = functional.pad(images, (pad,) * 4).permute(0, 2, 3, 1).unfold(1, height, 1).unfold(2, width, 1)
    every = torch.arange(len(images), device=images.device)
    return windows[every, offsets[:, 0], offsets[:, 1]]


def _windows(images: Tensor, boxes: Tensor) -> Tensor:
    """A window of each image, scaled to the size of the image (bilinear)."""
    start, size = boxes[:, :2], boxes[:, 2:]
    middle = 2 * start + size - 1  # in coordinates from -1 to 1
    turn = torch.cat([torch.diag_embed(size), middle.unsqueeze(2)], 2)
    grid = functional.affine_grid(turn, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def draw(kind: str, batch: int, pad: int, generator: torch.Generator) -> Augmentation:
    """Draw the augmentation of a global batch of `batch` images from a CPU generator.

    none: the images as they are. shift: zero-pad by `pad` and crop the whole batch at one random offset. shift_flip: the same,
    and each image mirrored left to right with probability 1/2. crop_flip: an offset of its own for each image, and the
    mirroring. resized_crop_flip: a window of each image of AREA of its area and RATIO between its sides, scaled to the whole, and the
    mirroring (Szegedy et al. 2015, arXiv 1409.4842; a window that is too wide or too high is cut, where torchvision draws again).
    Raises SpecError for another kind.
    """
    if kind not in KINDS:
        raise not_allowed("data.augment", kind, " | ".join(KINDS))
    if kind == "none":
        return Augmentation()
    if kind == "resized_crop_flip":
        return Augmentation(boxes=_boxes(batch, generator), flips=torch.rand(batch, generator=generator) < FLIP_PROBABILITY)
    offsets = torch.randint(0, 2 * pad + 1, (batch if kind == "crop_flip" else 1, 2), generator=generator)
    flips = torch.rand(batch, generator=generator) < FLIP_PROBABILITY if kind != "shift" else None
    if kind == "crop_flip":
        return Augmentation(pad, offsets=offsets, flips=flips)
    down, right = offsets[0].tolist()
    return Augmentation(pad, offset=(down, right), flips=flips)


def _boxes(batch: int, generator: torch.Generator) -> Tensor:
    area, turn, *place = torch.rand(4, batch, generator=generator)
    area = AREA[0] + area * (AREA[1] - AREA[0])
    ratio = torch.exp(math.log(RATIO[0]) + turn * math.log(RATIO[1] / RATIO[0]))
    size = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).clamp(max=1)
    return torch.cat([torch.stack(place, 1) * (1 - size), size], 1)


def to_device(drawn: Sequence[Augmentation], device: torch.device) -> list[Augmentation]:
    """The same augmentations, all of one kind and batch size, with their tensors on `device`: one copy for all of them."""
    moved = list(drawn)
    for name in ("offsets", "flips", "boxes"):
        parts = [part for one in drawn if (part := getattr(one, name)) is not None]
        if parts:
            together = torch.stack(parts).to(device)
            moved = [replace(one, **{name: part}) for one, part in zip(moved, together, strict=True)]
    return moved
