"""The hard concrete distribution: gates in [0, 1] that are exactly 0 or 1 with positive probability, differentiable in their logits.

Louizos et al. 2018, arXiv 1712.01312, section 2.2, with the constants that are usual since.
"""

import math

import torch
from torch import Tensor

BETA = 2 / 3  # temperature
GAMMA, ZETA = -0.1, 1.1  # the interval that the binary concrete variable is stretched to, before it is cut to [0, 1]
SHIFT = BETA * math.log(-GAMMA / ZETA)  # -1.599: a gate is open with probability sigmoid(logit - SHIFT)
MARGIN = 1e-6  # of the uniform noise to 0 and 1


def noise(count: int, generator: torch.Generator) -> Tensor:
    """Logistic noise (count,) float32, drawn on the CPU so that it is the same on every device."""
    uniform = torch.rand(count, generator=generator, dtype=torch.float64).clamp_(MARGIN, 1 - MARGIN)
    return uniform.logit_().float()


def sample(logits: Tensor, noise: Tensor) -> Tensor:
    """Gates in [0, 1] of the shape of `logits`; noise 0 gives the median."""
    return (torch.sigmoid((logits + noise) / BETA) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def median(logits: Tensor) -> Tensor:
    """The gates of a network in eval mode: exactly 0 up to logits of -1.599 and exactly 1 from 1.599 on."""
    return sample(logits, torch.zeros_like(logits))


def open_probability(logits: Tensor) -> Tensor:
    """P(gate > 0) of each logit."""
    return torch.sigmoid(logits - SHIFT)


def logit_at(probability: float) -> float:
    """The logit whose gate is open with `probability`, which lies in (0, 1)."""
    return math.log(probability / (1 - probability)) + SHIFT
