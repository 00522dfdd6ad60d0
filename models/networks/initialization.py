"""How fresh weights are drawn: the values of `NetworkSpec.init`."""

from torch import nn

from autosparse.models.masks.mask import CONVOLUTIONS

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def initialize(network: nn.Module, init: str) -> None:
    """Redraw the weights in place from torch's global generator; `own` leaves everything as the definition made it.

    `kaiming_in`: convolution and linear weights normal with variance 2 / fan_in, their biases 0. `kaiming_out`: convolution
    weights normal with variance 2 / fan_out, their biases 0, linear layers as they were made. Both: BatchNorm weight 1, bias 0.
    Source: He et al. 2015, arXiv 1502.01852, equations 10 and 14.
    """
    if init == "own":
        return
    mode, layers = ("fan_in", (*CONVOLUTIONS, nn.Linear)) if init == "kaiming_in" else ("fan_out", CONVOLUTIONS)
    for module in network.modules():
        if isinstance(module, layers):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, BATCH_NORMS) and module.affine:
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
