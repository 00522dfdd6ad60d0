"""A task of your own: regression on a table. The progress of 442 diabetes patients within a year, which scikit-learn has on board.

From the folder above this one: autosparse run --recipe examples.own_table:recipe
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from sklearn.datasets import load_diabetes
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from autosparse import Metric
from autosparse.flows.recipes import smoke
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fanout import TargetSpec
from autosparse.models.specs.run_specs import DataSpec, NetworkSpec

TRAIN = 354  # four fifths of the patients


class Progress:
    """What autosparse asks of a task: data, loss, metrics. The score is in points of the physicians' scale, 25 to 346."""

    metric = Metric(name="error", better="lower", unit="points of the scale", point=1.0)

    def __init__(self) -> None:
        table: Any = load_diabetes(scaled=False)
        features, score = (torch.tensor(part, dtype=torch.float32) for part in (table.data, table.target))
        order = torch.randperm(len(score), generator=torch.Generator().manual_seed(0))
        features, score = features[order], score[order]
        mean, std = features[:TRAIN].mean(0), features[:TRAIN].std(0)
        self.middle, self.spread = float(score[:TRAIN].mean()), float(score[:TRAIN].std())
        data = (features - mean) / std, (score - self.middle) / self.spread
        self.train, self.test = (TensorDataset(*(part[rows] for part in data)) for rows in (slice(TRAIN), slice(TRAIN, None)))

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """Mean squared error, in standard deviations."""
        features, score = batch
        return nn.functional.mse_loss(network(features).squeeze(1), score)

    def measure(self, network: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        """Sums over the patients of a batch."""
        features, score = batch
        wrong = (network(features).squeeze(1) - score).double()
        return {"squares": wrong.square().sum(), "sizes": wrong.abs().sum(), "patients": torch.tensor(len(score), device=score.device)}

    def metrics(self, sums: Mapping[str, Tensor]) -> Mapping[str, float]:
        """The root mean squared error, which counts, and the mean absolute one beside it."""
        patients = float(sums["patients"])
        return {
            "error": self.spread * math.sqrt(float(sums["squares"]) / patients),
            "absolute_error": self.spread * float(sums["sizes"]) / patients,
        }


def build(width: int = 64) -> nn.Module:
    """Three linear layers."""
    return nn.Sequential(nn.Linear(10, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))


def recipe() -> ExperimentSpec:
    """The smallest recipe, with this task and network in the place of digits."""
    base, network = smoke(), NetworkSpec(name="examples.own_table:build")
    train = replace(base.irp.train, epochs=4, batch_size=32, lr=0.02)
    return replace(
        base,
        data=DataSpec(name="examples.own_table:Progress"),
        irp=replace(base.irp, networks=(network,), train=train, min_per_layer=2),
        scoring=replace(base.scoring, batch_size=64),
        fanout=replace(base.fanout, targets=(TargetSpec(network=network),), methods=("random", "magnitude", "snip", "scorer"), train=train),
    )
