"""Gates: what a mask is worth, before any training is spent on it.

A kept weight that lies on no path from the input to the output is dead: nothing of the input reaches the output through it.
The density without the dead weights is the effective density (Vysogorets and Kempe 2021, arXiv 2107.02306).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from autosparse.models.errors import not_allowed
from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import keep_count
from autosparse.models.masks.linearised import linearised
from autosparse.models.masks.mask import Mask

# What the mode below does with a function of torch, by name, so that modules, functions and methods of tensors are all met.
WEIGHTED = {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear"}
NORMS = {"batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm"}
ACTIVATIONS = {"relu", "relu6", "leaky_relu", "prelu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish", "hardtanh", "tanh"}
MEANS = {
    "max_pool1d": functional.avg_pool1d,
    "max_pool2d": functional.avg_pool2d,
    "max_pool3d": functional.avg_pool3d,
    "adaptive_max_pool1d": functional.adaptive_avg_pool1d,
    "adaptive_max_pool2d": functional.adaptive_avg_pool2d,
    "adaptive_max_pool3d": functional.adaptive_avg_pool3d,
}
LEAST = 1e-9  # below it is rounding: what is connected is at least 1 / (pixels of an image)


def facts(network: nn.Module, mask: Mask, shape: Sequence[int], *, density: float) -> dict[str, Any]:
    """What a report says of a mask that was asked for `density`; `shape` is that of one input without the batch dimension.

    `exact`: whether it keeps exactly as many weights as asked. `collapsed`: layers without a kept weight. `cut_off`: layers
    that have kept weights, none of them effective. `effective_density`: effective / prunable weights. The last two are None
    for networks with attention.
    """
    alive = effective(network, mask, shape) if has_paths(network) else None
    return {
        "kept": masks.kept(mask),
        "density": masks.density(mask),
        "exact": masks.kept(mask) == keep_count(density, masks.total(mask)),
        "collapsed": masks.collapsed_layers(mask),
        "cut_off": [name for name in masks.collapsed_layers(alive) if mask[name].any()] if alive else None,
        "effective_density": masks.density(alive) if alive else None,
        "layer_densities": masks.layer_densities(mask),
        "checksum": masks.checksum(mask),
    }


def effective_density(network: nn.Module, mask: Mask, shape: Sequence[int]) -> float | None:
    """Effective / prunable weights, None with attention; `shape` is that of one input without the batch dimension."""
    return masks.density(effective(network, mask, shape)) if has_paths(network) else None


def has_paths(network: nn.Module) -> bool:
    """Whether paths can be told: not where attention decides by its input what is connected with what."""
    return not any(isinstance(module, nn.MultiheadAttention) for module in network.modules())


def effective(network: nn.Module, mask: Mask, shape: Sequence[int]) -> Mask:
    """The kept weights that lie on a path from the input to the output.

    `shape` is that of one input without the batch dimension; weights outside `mask` all connect. Raises SpecError when the
    mask is not one of this network, or the network has attention.
    """
    return both(mask, Reach(network, shape).on_path(mask))


def both(mask: Mask, other: Mask) -> Mask:
    """Weights that both masks keep."""
    return {name: keep & other[name] for name, keep in mask.items()}


class Reach:
    """Which weights of a network could carry something from the input to the output under a mask.

    The network runs on an input of ones in float64 with each weight 1 or 0, all biases 0, norms and activations as the
    identity and maxima as means, so nothing cancels. Outputs of layers, and gradients on their way back through them, are cut
    to 0 or 1: they mean "connected", and no depth makes them overflow or vanish. The gradient of the output by a weight is
    then above 0 exactly when the weight's input hangs on the input of the network and its output on the output.

    Sigmoids stay as they are: the gate of an attention block counts as open. Functions of a network's own that are not
    monotone, or parameters that are added, are beyond this.
    """

    def __init__(self, network: nn.Module, shape: Sequence[int]) -> None:
        if not has_paths(network):
            raise not_allowed("network", type(network).__name__, "a network without attention, so that paths can be told")
        self._skeleton = linearised(network)
        self._ones = torch.ones((1, *shape), dtype=torch.float64, device=next(self._skeleton.parameters()).device)

    def on_path(self, mask: Mask) -> Mask:
        """Weights, kept or not, that lie on a path of kept weights, or would if this one weight was kept as well."""
        with torch.no_grad():
            for name, param in self._skeleton.named_parameters():
                param.fill_(0.0 if name.endswith("bias") else 1.0)
        masks.apply_(self._skeleton, mask)
        params = dict(self._skeleton.named_parameters())
        with torch.enable_grad(), _Connections():
            output = self._skeleton(self._ones).sum()
        slopes = torch.autograd.grad(output, [params[name] for name in mask], materialize_grads=True)
        return {name: (slope > LEAST).to(mask[name].device) for name, slope in zip(mask, slopes, strict=True)}


class _Connections(TorchFunctionMode):
    """Inside, layers say what is connected instead of how strongly."""

    def __torch_function__(self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").rstrip("_")
        if name in WEIGHTED:
            return _Connected.apply(func(*args, **kwargs))
        if name in NORMS | ACTIVATIONS:
            return (args[0] if args else kwargs["input"]).clone()  # a copy: what comes next may work in place
        if name in MEANS:
            known = {key: value for key, value in kwargs.items() if key not in ("dilation", "return_indices")}
            return MEANS[name](*args[:4], **known, **({"ceil_mode": args[5]} if len(args) > 5 else {}))
        return func(*args, **kwargs)


class _Connected(torch.autograd.Function):
    """1 where there is anything, on the way forth and on the way back."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return (values > LEAST).to(values.dtype)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        return (slopes[0] > LEAST).to(slopes[0].dtype)
