"""What stands around a network: data parallel and compiled wrappers are looked through, so that names fit the plain network."""

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel


def plain(network: nn.Module) -> nn.Module:
    """The network itself, without DataParallel, DistributedDataParallel or torch.compile around it; parameters are the same objects."""
    while True:
        if isinstance(network, DataParallel | DistributedDataParallel):
            network = network.module
        elif isinstance(inner := getattr(network, "_orig_mod", None), nn.Module):
            network = inner
        else:
            return network
