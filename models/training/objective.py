"""What a network learns and how that is measured: a loss, sums over test examples, and the metrics that they make.

Built in is the classification of images. A task of one's own says the same things (`models/training/own_task.py`).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from autosparse.models.errors import not_allowed
from autosparse.models.networks.calls import logits_of
from autosparse.models.specs.training import TrainSpec
from autosparse.models.training.mixup import Between

Sums = Mapping[str, Tensor]
Schedule = Callable[[int, int], float]  # (step, steps of the whole training) -> the learning rate as a share of the spec's
LARGER, SMALLER = "higher", "lower"
# what the record of an epoch, a report or a table says beside the metrics
RESERVED = frozenset({"epoch", "epochs", "step", "loss", "lr", "facts", "seconds", "density", "status", "metric", "value", "training_macs"})


@dataclass(frozen=True, kw_only=True)
class Metric:
    """The number by which networks are compared: its name, which direction is better, its unit for tables.

    Differences below `point` decide nothing (for accuracies one percentage point); 0 leaves it to the paired test alone.
    Raises SpecError.
    """

    name: str
    better: Literal["higher", "lower"] = "higher"
    unit: str = ""
    point: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier() or self.name in RESERVED:
            raise not_allowed("metric.name", self.name, f"a name of letters, digits and _, none of {', '.join(sorted(RESERVED))}")
        if self.better not in (LARGER, SMALLER):
            raise not_allowed("metric.better", self.better, f"{LARGER} | {SMALLER}")
        if not isinstance(self.point, int | float) or not 0 <= self.point < math.inf:
            raise not_allowed("metric.point", self.point, ">= 0")

    @property
    def sign(self) -> int:
        """1 where higher is better, else -1: times this, every difference is a gain."""
        return 1 if self.better == LARGER else -1

    @property
    def title(self) -> str:
        """The name in tables, axes and sentences: `perplexity`, `error (m)`."""
        return self.name.replace("_", " ") + (f" ({self.unit})" if self.unit else "")

    def to_plain(self) -> dict[str, Any]:
        """As a report stores it."""
        return {"name": self.name, "better": self.better, "unit": self.unit, "point": self.point}


ACCURACY = Metric(name="accuracy", point=0.01)


class Objective(Protocol):
    """A loss to be small in training, and what of the test examples makes the metrics."""

    @property
    def metric(self) -> Metric:
        """By which networks are compared."""
        ...

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """The mean loss of a batch; `network` may be the wrapper of a distributed or compiled one."""
        ...

    def measure(self, network: nn.Module, batch: Any) -> Sums:
        """Sums over the examples of a batch, of any shape, which add up over batches and workers."""
        ...

    def metrics(self, sums: Sums) -> Mapping[str, float]:
        """Metric name -> value, out of the sums over all test examples."""
        ...

    def optimizer(self, network: nn.Module, spec: TrainSpec) -> torch.optim.Optimizer | None:
        """An optimizer in the place of the spec's."""
        ...

    @property
    def schedule(self) -> Schedule | None:
        """A schedule in the place of the spec's."""
        ...


def check_names(metric: Metric, metrics: Mapping[str, float]) -> None:
    """Raise SpecError where the metric that counts is missing, or one has a reserved name."""
    if not isinstance(metrics, Mapping) or metric.name not in metrics:
        raise not_allowed("task.metrics", sorted(metrics) if isinstance(metrics, Mapping) else type(metrics).__name__, repr(metric.name))
    if taken := RESERVED & metrics.keys():
        raise not_allowed("task.metrics", sorted(taken), f"names other than {', '.join(sorted(RESERVED))}")


def told(metric: Metric, metrics: Mapping[str, float]) -> dict[str, Any]:
    """What a report says of them: the accuracy by its name alone; other metrics together with the one that counts."""
    return dict(metrics) if metric == ACCURACY else {"metric": metric.to_plain(), "metrics": dict(metrics)}


@dataclass(frozen=True)
class Classification:
    """Cross entropy of one label per image; the share of test images that are classified right."""

    label_smoothing: float = 0.0
    metric: Metric = ACCURACY

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """The mean cross entropy; labels are class numbers, or between those of two images."""
        images, labels = batch
        logits = logits_of(network(images))
        target = Between(*labels).probabilities(logits.shape[1]) if isinstance(labels, tuple) else labels
        return functional.cross_entropy(logits, target, label_smoothing=self.label_smoothing)

    def measure(self, network: nn.Module, batch: Any) -> Sums:
        """How many images are classified right, out of how many."""
        images, labels = batch
        right = (logits_of(network(images)).argmax(1) == labels).sum()
        return {"right": right, "images": torch.full_like(right, len(labels))}

    def metrics(self, sums: Sums) -> Mapping[str, float]:
        """The accuracy in [0, 1]."""
        return {"accuracy": int(sums["right"]) / int(sums["images"])}

    def optimizer(self, network: nn.Module, spec: TrainSpec) -> None:
        """That of the spec."""

    @property
    def schedule(self) -> None:
        """That of the spec."""
