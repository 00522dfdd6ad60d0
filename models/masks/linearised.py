"""A network through which an input of ones stays positive: what flow and paths are measured on."""

from copy import deepcopy

import torch
from torch import nn


def linearised(network: nn.Module) -> nn.Module:
    """A float64 copy whose parameters and buffers are absolute values, in eval mode, so that an input of ones stays positive.

    BatchNorm thereby acts by its running statistics; at initialization (mean 0, variance 1) it is the identity up to its eps.
    """
    linear = deepcopy(network).double().eval().requires_grad_(True)
    with torch.no_grad():
        for tensor in (*linear.parameters(), *linear.buffers()):
            if tensor.is_floating_point():
                tensor.abs_()
    return linear
