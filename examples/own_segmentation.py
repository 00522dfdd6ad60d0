"""A task of your own: segmentation. Which pixels of a noisy picture belong to which handwritten digit, or to none.

From the folder above this one: autosparse run --recipe examples.own_segmentation:recipe
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from autosparse import Metric
from autosparse.flows.recipes import smoke
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fanout import TargetSpec
from autosparse.models.specs.run_specs import DataSpec, NetworkSpec

SIZE, CLASSES, INK = 16, 11, 6  # pixels of a side; ten digits and the ground; the grey (of 16) from which on a pixel is ink


class Scenes:
    """Digits at random places of a noisy ground: picture (1, SIZE, SIZE) and the class of each of its pixels."""

    def __init__(self, rows: slice, seed: int) -> None:
        digits: Any = load_digits()
        drawn = torch.Generator().manual_seed(seed)
        images, labels = torch.tensor(digits.images[rows], dtype=torch.float32), torch.tensor(digits.target[rows])
        self.pictures = 0.3 * torch.rand(len(labels), 1, SIZE, SIZE, generator=drawn)
        self.classes = torch.zeros(len(labels), SIZE, SIZE, dtype=torch.int64)
        for number, (top, left) in enumerate(torch.randint(SIZE - 7, (len(labels), 2), generator=drawn).tolist()):
            place = (slice(top, top + 8), slice(left, left + 8))
            self.pictures[number, 0][place] += images[number] / 16
            self.classes[number][place] = torch.where(images[number] >= INK, labels[number] + 1, 0)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.pictures[row], self.classes[row]


class Finding:
    """What autosparse asks of a task: data, loss, metrics."""

    metric = Metric(name="mean_iou", point=0.01)

    def __init__(self) -> None:
        self.keywords = {"num_classes": CLASSES}  # for the network below
        self.train, self.test = Scenes(slice(512), seed=0), Scenes(slice(1600, None), seed=1)

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """Cross entropy of each pixel."""
        pictures, classes = batch
        return cross_entropy(network(pictures), classes)

    def measure(self, network: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        """Pixels of each class: found where they are, and found or there."""
        pictures, classes = batch
        found = nn.functional.one_hot(network(pictures).argmax(1), CLASSES).bool().flatten(0, 2)
        there = nn.functional.one_hot(classes, CLASSES).bool().flatten(0, 2)
        return {"both": (found & there).sum(0), "either": (found | there).sum(0)}

    def metrics(self, sums: Mapping[str, Tensor]) -> Mapping[str, float]:
        """Intersection over union, the mean over the classes."""
        return {"mean_iou": float((sums["both"] / sums["either"].clamp(min=1)).mean())}


class Finder(nn.Module):
    """A U-Net of one step down and one up."""

    def __init__(self, num_classes: int, width: int = 16) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU())
        self.both = nn.Sequential(nn.Conv2d(3 * width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits of each pixel (batch, classes, height, width)."""
        fine = self.fine(pictures)
        coarse = interpolate(self.coarse(fine), scale_factor=2.0)
        return self.head(self.both(torch.cat([fine, coarse], 1)))


def recipe() -> ExperimentSpec:
    """The smallest recipe, with this task and network in the place of digits."""
    base, network = smoke(), NetworkSpec(name="examples.own_segmentation:Finder")
    train = replace(base.irp.train, epochs=2, batch_size=32)
    return replace(
        base,
        data=DataSpec(name="examples.own_segmentation:Finding"),
        irp=replace(base.irp, networks=(network,), train=train, min_per_layer=2),
        scoring=replace(base.scoring, batch_size=64),
        fanout=replace(
            base.fanout, targets=(TargetSpec(network=network),), methods=("magnitude", "synflow", "scorer"), train=train, compact=True
        ),
    )
