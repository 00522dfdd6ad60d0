"""A task of one's own with an optimizer and a schedule of its own: which half of four numbers is larger."""

from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset


def _numbers(count: int, seed: int) -> TensorDataset:
    inputs = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(inputs, (inputs[:, :2].sum(1) > inputs[:, 2:].sum(1)).long())


class Task:
    """AdamW at a tenth of the rate, which falls to zero."""

    def __init__(self) -> None:
        self.train, self.test = _numbers(64, 0), _numbers(32, 1)

    def optimizer(self, network: nn.Module, settings: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(network.parameters(), lr=settings.lr / 10, weight_decay=0.1)

    def schedule(self, step: int, steps: int) -> float:
        return 1 - step / steps


class Plain:
    """The same without them."""

    def __init__(self) -> None:
        self.train, self.test = _numbers(64, 0), _numbers(32, 1)


class Strange(Task):
    """Its optimizer is one of another network."""

    def optimizer(self, network: nn.Module, settings: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(nn.Linear(1, 1).parameters())


def network() -> nn.Module:
    """Two layers."""
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
