"""Weights behind a threshold: the network computes with T(W), W is trained on, and a share alpha of the gradient passes where T(W) is 0.

With `keep` where a weight is above its threshold (or among the largest), and m = 1 there and alpha elsewhere:

    soft:   S(W, s) = sign(W) * max(|W| - g(s), 0),  g = sigmoid    dW = m * dS    ds = -g'(s) * sum(m * sign(W) * dS)
    top-k:  W where kept, 0 elsewhere                               dW = m * dT

Soft with alpha = 0 is STR (Kusupati et al. 2020, arXiv 2002.03231), alpha = 1 a straight-through estimator; AUTOSPARSE (arXiv
2304.06941) anneals from one towards the other.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from autosparse.models.masks.allocation import erk_topk


class _Shrink(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, s: Tensor, alpha: Tensor) -> Tensor:
        ctx.save_for_backward(weight, s, alpha)
        return weight.sign() * (weight.abs() - s.sigmoid()).relu()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        weight, s, alpha = ctx.saved_tensors
        threshold = s.sigmoid()
        passed = _leak(slopes[0], weight.abs() > threshold, alpha)
        return passed, -(passed * weight.sign()).sum() * (1 - threshold) * threshold, None


class _Select(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, keep: Tensor, alpha: Tensor) -> Tensor:
        ctx.save_for_backward(keep, alpha)
        return weight * keep

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        return _leak(slopes[0], *ctx.saved_tensors), None, None


def _leak(slope: Tensor, keep: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(keep, slope, alpha * slope)


class SoftThreshold(nn.Module):
    """S(W, s) of one layer; `s` is learned, `alpha` (a scalar that others may share and change) is not."""

    alpha: Tensor

    def __init__(self, s: float, alpha: Tensor) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.tensor(s, device=alpha.device))
        self.register_buffer("alpha", alpha, persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        return _Shrink.apply(weight, self.s, self.alpha)  # type: ignore[return-value]


class Selection(nn.Module):
    """The weights of one layer in `keep` (bool, of the weight's shape); the rest counts as 0."""

    alpha: Tensor
    keep: Tensor

    def __init__(self, keep: Tensor, alpha: Tensor) -> None:
        super().__init__()
        self.register_buffer("keep", keep)
        self.register_buffer("alpha", alpha, persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        return _Select.apply(weight, self.keep, self.alpha)  # type: ignore[return-value]


Part = SoftThreshold | Selection


class Thresholds:
    """A transform (`autosparse.models.methods.contract`): `parts` (name of a weight -> threshold) on the weights of a network.

    `raw` are the trained weights behind them. From then on a weight `conv.weight` is the parameter
    `conv.parametrizations.weight.original`, until `bake`.
    """

    def __init__(self, network: nn.Module, parts: Mapping[str, Part]) -> None:
        self.parts = dict(parts)
        parameters = dict(network.named_parameters())
        self.raw = {name: parameters[name] for name in parts}
        for name, part in parts.items():
            parametrize.register_parametrization(network.get_submodule(name.rpartition(".")[0]), "weight", part)

    def sample(self, generator: torch.Generator) -> None:
        """Nothing is drawn."""

    def bake(self, network: nn.Module) -> None:
        """Put T(W) into W; parameters have their old names and order again."""
        for name in self.parts:
            module: Any = network.get_submodule(name.rpartition(".")[0])
            with torch.no_grad():
                value = module.weight.clone()
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
                module.weight.copy_(value)
            for later in [other for other in module._parameters if other != "weight"]:
                module._parameters[later] = module._parameters.pop(later)

    @torch.no_grad()
    def kept(self) -> dict[str, int]:
        """How many weights of each layer are not zero for the network."""
        return {name: int(self.parts[name](raw).count_nonzero()) for name, raw in self.raw.items()}


class Largest(Thresholds):
    """The largest weights by magnitude at an exact density, layers by Erdos-Renyi-kernel, chosen anew before every step."""

    def __init__(self, network: nn.Module, weights: Mapping[str, Tensor], density: float, alpha: Tensor) -> None:
        self.density = density
        chosen = erk_topk({name: weight.detach().abs() for name, weight in weights.items()}, density, floor=1)
        super().__init__(network, {name: Selection(keep, alpha) for name, keep in chosen.items()})

    @torch.no_grad()
    def sample(self, generator: torch.Generator) -> None:
        """Nothing is drawn; the choice follows the weights. Raises DivergedError when one is NaN."""
        for name, keep in erk_topk({name: raw.abs() for name, raw in self.raw.items()}, self.density, floor=1).items():
            part = self.parts[name]
            assert isinstance(part, Selection)
            part.keep.copy_(keep)
