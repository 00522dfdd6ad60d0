"""Gates: what a mask is worth, before any training is spent on it.

A kept weight that lies on no path from the input to the output is dead: nothing of the input reaches the output through it.
The density without the dead weights is the effective density (Vysogorets and Kempe 2021, arXiv 2107.02306).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import keep_count
from autosparse.models.masks.linearised import linearised, ones_for, pass_through, settled
from autosparse.models.masks.mask import Mask
from autosparse.models.masks.rules import Rules
from autosparse.models.networks.calls import Shape, is_shape

MEANS = {
    "max_pool1d": functional.avg_pool1d,
    "max_pool2d": functional.avg_pool2d,
    "max_pool3d": functional.avg_pool3d,
    "adaptive_max_pool1d": functional.adaptive_avg_pool1d,
    "adaptive_max_pool2d": functional.adaptive_avg_pool2d,
    "adaptive_max_pool3d": functional.adaptive_avg_pool3d,
}
WEIGHT = "weight"  # in the names of parameters that are multiplied with what comes in; all others are added
LEAST = 1e-9  # below it is rounding: what is connected is at least 1 / (pixels of an image)


def facts(network: nn.Module, mask: Mask, shape: Shape, *, density: float) -> dict[str, Any]:
    """What a report says of a mask that was asked for `density`; `shape` is that of one input without the batch dimension.

    `exact`: whether it keeps exactly as many weights as asked. `collapsed`: layers without a kept weight. `cut_off`: layers
    that have kept weights, none of them effective. `effective_density`: effective / prunable weights.
    """
    alive = effective(network, mask, shape)
    return {
        "kept": masks.kept(mask),
        "density": masks.density(mask),
        "exact": masks.kept(mask) == keep_count(density, masks.total(mask)),
        "collapsed": masks.collapsed_layers(mask),
        "cut_off": [name for name in masks.collapsed_layers(alive) if mask[name].any()],
        "effective_density": masks.density(alive),
        "layer_densities": masks.layer_densities(mask),
        "checksum": masks.checksum(mask),
    }


def effective_density(network: nn.Module, mask: Mask, shape: Shape) -> float:
    """Effective / prunable weights; `shape` is that of one input without the batch dimension."""
    return masks.density(effective(network, mask, shape))


def effective(network: nn.Module, mask: Mask, shape: Shape) -> Mask:
    """The kept weights that lie on a path from the input to the output.

    `shape` is that of one input without the batch dimension; weights outside `mask` all connect. Raises SpecError when the
    mask is not one of this network.
    """
    return both(mask, Reach(network, shape).on_path(mask))


def both(mask: Mask, other: Mask) -> Mask:
    """Weights that both masks keep."""
    return {name: keep & other[name] for name, keep in mask.items()}


class Reach:
    """Which weights of a network could carry something from the input to the output under a mask.

    The network runs on an input of ones in float64 with each weight 1 or 0, all that is added 0, norms and activations as the
    identity and maxima as means, so nothing cancels. Outputs of layers, and gradients on their way back through them, are cut
    to 0 or 1: they mean "connected", and no depth makes them overflow or vanish. The gradient of the output by a weight is
    then above 0 exactly when the weight's input hangs on the input of the network and its output on the output.

    Gates and attention count as open: what they let through connects without them, and they connect where they have something
    to let through. What a network of one's own does with the rules of `models/masks/rules.py` is beyond this.
    """

    def __init__(self, network: nn.Module, shape: Shape) -> None:
        self._skeleton = linearised(network)
        device = next(self._skeleton.parameters()).device
        self._ones = torch.ones((1, *shape), dtype=torch.float64, device=device) if is_shape(shape) else ones_for(shape)
        settled(self._skeleton, self._ones)

    def on_path(self, mask: Mask) -> Mask:
        """Weights, kept or not, that lie on a path of kept weights, or would if this one weight was kept as well."""
        params = dict(self._skeleton.named_parameters())
        with torch.no_grad():
            for name, param in params.items():
                param.fill_(1.0 if name in mask or param.requires_grad or WEIGHT in name.rpartition(".")[2] else 0.0)
        masks.apply_(self._skeleton, mask)
        for name in mask:
            params[name].requires_grad_()
        output = pass_through(self._skeleton, self._ones, Connections())
        slopes = torch.autograd.grad(output, [params[name] for name in mask], materialize_grads=True)
        return {name: (slope > LEAST).to(mask[name].device) for name, slope in zip(mask, slopes, strict=True)}


class Connections(Rules):
    """Inside, layers say what is connected instead of how strongly."""

    def __init__(self) -> None:
        super().__init__()
        self._rules.update(dict.fromkeys(MEANS, _mean))

    def weighted(self, values: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
        """1 where there is anything."""
        return _Connected.apply(values)

    def normed(self, func: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """The identity."""
        return args[0].clone()

    def gate(self, func: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
        """Sigmoids are open, whatever they hang on; tanh is the identity."""
        return values.clone() if "tanh" in func.__name__ else _Connected.apply(values).sigmoid()

    def softmax(self, values: Tensor, dim: int) -> Tensor:
        """Open but where it is closed."""
        return torch.where(values == -math.inf, 0.0, _Connected.apply(values).sigmoid())

    def product(self, func: Callable[[Tensor, Tensor], Tensor], one: Tensor, other: Tensor) -> Tensor:
        """As it is: without one of them there is nothing."""
        return func(one, other)

    def matrix_product(self, func: Callable[[Tensor, Tensor], Tensor], one: Tensor, other: Tensor) -> Tensor:
        """1 where any of the products is above 0."""
        return _Connected.apply(func(one, other))


def _mean(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
    known = {key: value for key, value in kwargs.items() if key not in ("dilation", "return_indices")}
    return MEANS[func.__name__](*args[:4], **known, **({"ceil_mode": args[5]} if len(args) > 5 else {}))


class _Connected(torch.autograd.Function):
    """1 where there is anything, on the way forth and on the way back."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return (values > LEAST).to(values.dtype)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        return (slopes[0] > LEAST).to(slopes[0].dtype)
