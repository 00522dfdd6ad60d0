"""Mixup (Zhang, Cisse, Dauphin and Lopez-Paz, ICLR 2018, arXiv 1710.09412): images between two, with labels between theirs."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from autosparse.models import seeding


class Between(NamedTuple):
    """Labels of mixed images: `share` of the first, the rest of the second; all (n,)."""

    first: Tensor
    second: Tensor
    share: Tensor

    def probabilities(self, classes: int) -> Tensor:
        """(n, classes) float32."""
        first, second = (one_hot(labels, classes) for labels in (self.first, self.second))
        return torch.lerp(second.float(), first.float(), self.share[:, None])


def mixed(batch: tuple[Tensor, Tensor], alpha: float, seed: int, step: int) -> tuple[Tensor, Between]:
    """The batch with each image mixed with another one of it, as the reference does: one share of Beta(alpha, alpha) per step.

    Share and partners are a function of seed and step: all ranks draw the same share, each mixes its own rows.
    """
    images, labels = batch
    draws = np.random.default_rng(seeding.derive(seed, "mixup", step))
    share = float(draws.beta(alpha, alpha))
    order = torch.from_numpy(draws.permutation(len(labels))).to(labels.device)
    return images[order].lerp(images, share), Between(labels, labels[order], torch.full(labels.shape, share, device=labels.device))
