"""Multiply-adds of a network, counted from the shapes of one forward pass.

Only weights of convolutions and linear layers are counted, as in the literature on pruning at initialization; biases, norms,
activations and pooling are not.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from autosparse.models.masks.mask import CONVOLUTIONS
from autosparse.models.networks.look_through import look_through

BACKWARD = 2  # a backward pass costs two forward passes: gradients of the inputs, gradients of the weights


def forward_macs(network: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, int]:
    """Dense multiply-adds per image of every convolution and linear layer, by the name of its weight, in module order.

    Found by one look through the network. A layer that is used twice counts twice.
    """
    counts: dict[str, int] = {}
    hooks = [
        module.register_forward_hook(_counter(f"{name}.weight".lstrip("."), counts))
        for name, module in network.named_modules()
        if isinstance(module, (*CONVOLUTIONS, nn.Linear))
    ]
    look_through(network, image_shape, hooks)
    return counts


def training_macs(macs: Mapping[str, int], densities: Mapping[str, float] | None = None) -> float:
    """Multiply-adds per image of one training step, forward and backward; `macs` are those of `forward_macs`.

    With `densities` (kept share per layer) it is the ideal cost of sparse training, in which a masked weight costs nothing; a
    layer without a density is dense. PyTorch trains masked networks at the dense cost.
    """
    known = densities or {}
    return (1 + BACKWARD) * sum(count * known.get(name, 1.0) for name, count in macs.items())


def _counter(name: str, counts: dict[str, int]) -> Callable[[Any, Any, Tensor], None]:
    def count(module: Any, inputs: Any, output: Tensor) -> None:
        # each number of the output is one dot product with the weights of its channel
        counts[name] = counts.get(name, 0) + output.numel() * module.weight[0].numel()

    return count
