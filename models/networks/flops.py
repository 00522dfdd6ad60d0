"""Multiply-adds of a network, counted from the shapes of one forward pass.

Only products with weights are counted, as in the literature on pruning at initialization: of convolutions and their transposes, linear
layers, the projections of attention and recurrent layers. Biases, norms, activations, pooling and softmax are not.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from autosparse.models.masks.prunable import CONVOLUTIONS, PROJECTIONS, RECURRENT, TRANSPOSED
from autosparse.models.networks.calls import Inputs, Shape, blank, call

BACKWARD = 2  # a backward pass costs two forward passes: gradients of the inputs, gradients of the weights
COUNTED = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)
MADE = re.compile(r"parametrizations\.(\w+)\.original\d*$|(\w+?)_(?:v|orig)$")


def forward_macs(network: nn.Module, shape: Shape) -> dict[str, int]:
    """Dense multiply-adds per example of this shape, by the name of each weight: `macs` of a black image, or of the inputs themselves."""
    return macs(network, blank(shape, network))


def macs(network: nn.Module, inputs: Inputs) -> dict[str, int]:
    """Dense multiply-adds of one forward pass on `inputs`, by the name of each weight (`weight_name` of its parameter), in module order.

    A layer that is used twice counts twice. The network runs in eval mode and is as it was afterwards, whether the pass went well or not.
    """
    counts: dict[str, int] = {}
    modes = [(module, module.training) for module in network.modules()]
    hooks = [
        module.register_forward_hook(_counter(name, counts), with_kwargs=True)
        for name, module in network.named_modules()
        if isinstance(module, COUNTED)
    ]
    try:
        network.eval()
        with torch.enable_grad():  # without gradients, attention takes a short cut past its layers
            call(network, inputs)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes:
            module.training = mode
    return counts


def weight_name(parameter: str) -> str:
    """The weight that a parameter makes: `conv.weight` of `conv.parametrizations.weight.original1`, `conv.weight_v`, `conv.weight_orig`."""
    return MADE.sub(lambda found: found[1] or found[2], parameter)


def training_macs(macs: Mapping[str, int], densities: Mapping[str, float] | None = None) -> float:
    """Multiply-adds per image of one training step, forward and backward; `macs` are those of `forward_macs`.

    With `densities` (kept share per layer) it is the ideal cost of sparse training, in which a masked weight costs nothing; a
    layer without a density is dense. PyTorch trains masked networks at the dense cost.
    """
    known = densities or {}
    return (1 + BACKWARD) * sum(count * known.get(name, 1.0) for name, count in macs.items())


def _counter(prefix: str, counts: dict[str, int]) -> Callable[..., None]:
    def count(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        for local, found in _products(module, args, kwargs, output):
            name = f"{prefix}.{local}".lstrip(".")
            counts[name] = counts.get(name, 0) + found

    return count


def _products(module: Any, args: Any, kwargs: Mapping[str, Any], output: Any) -> list[tuple[str, int]]:
    """Multiply-adds of one call of a layer, by its weights."""
    if isinstance(module, nn.MultiheadAttention):
        rows = [given.numel() // given.shape[-1] for given in _three(args, kwargs)]
        projections = [rows[0] * module.embed_dim**2] + [
            count * module.embed_dim * width for count, width in zip(rows[1:], (module.kdim, module.vdim), strict=True)
        ]
        packed = module.in_proj_weight is not None
        named = [(PROJECTIONS[0], sum(projections))] if packed else list(zip(PROJECTIONS[1:], projections, strict=True))
        return [*named, ("out_proj.weight", rows[0] * module.embed_dim**2)]
    given: Any = args[0] if args else next(iter(kwargs.values()))
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        values = given.data if isinstance(given, PackedSequence) else given
        rows = values.numel() // module.input_size
        names = dict.fromkeys(weight_name(name) for name, _ in module.named_parameters())
        return [(name, rows * getattr(module, name).numel()) for name in names if name.startswith(RECURRENT)]
    # each number of the output is one dot product with the weights of its channel; a transpose is the same, seen from its input
    seen = given if isinstance(module, TRANSPOSED) else output
    return [("weight", seen.numel() * module.weight[0].numel())]


def _three(args: Any, kwargs: Mapping[str, Any]) -> list[Tensor]:
    names = ("query", "key", "value")
    return [args[index] if index < len(args) else kwargs[name] for index, name in enumerate(names)]
