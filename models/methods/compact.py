"""A smaller network out of one with dead channels: the same outputs in eval mode, fewer weights."""

from typing import Any

import torch
from torch import Tensor, nn

from autosparse.models.masks.reparametrized import copied
from autosparse.models.methods.channel_groups import ChannelGroup, channel_groups

SIZES = {"row": ("out_channels", "out_features", "num_features"), "column": ("in_channels", "in_features")}


@torch.no_grad()
def purge(network: nn.Module) -> nn.Module:
    """A plain copy without the channels that are zero wherever they are written.

    A channel is dead when weight and bias of the BatchNorms behind its layers are 0, or of the layers where there is none. The
    readers lose its columns. Of a group that died as a whole one channel of zeros stays. Gates are folded in by `Gates.bake`
    before, into the BatchNorm (or layer) that writes a channel: into the next convolution would be the same where everything
    between is positively homogeneous, and wrong where it is not. Raises SpecError when no channel of the network can be removed.
    """
    small = copied(network)
    for group in channel_groups(small):
        keep = torch.stack([_written(small, site.norm or site.layer) for site in group.sites]).any(0)
        if not keep.any():
            keep[0] = True
        if not keep.all():
            _slice(small, group, keep)
    return small


def _written(network: nn.Module, name: str) -> Tensor:
    """Which channels (size,) the module does not always leave at zero."""
    module: Any = network.get_submodule(name)
    written = module.weight.flatten(1).ne(0).any(1) if module.weight.dim() > 1 else module.weight.ne(0)
    return written if module.bias is None else written | module.bias.ne(0)


def _slice(network: nn.Module, group: ChannelGroup, keep: Tensor) -> None:
    for site in group.sites:
        for name in filter(None, (site.layer, site.norm)):
            _rows(network.get_submodule(name), keep)
    for reader in group.readers:
        module: Any = network.get_submodule(reader)
        columns = keep.repeat_interleave(module.weight.shape[1] // group.size)
        module.weight = _part(module.weight, module.weight[:, columns])
        _resize(module, "column", int(columns.sum()))


def _rows(module: Any, keep: Tensor) -> None:
    for name in ("weight", "bias", "running_mean", "running_var"):
        tensor = getattr(module, name, None)
        if tensor is not None:
            setattr(module, name, _part(tensor, tensor[keep]))
    _resize(module, "row", int(keep.sum()))


def _part(whole: Tensor, part: Tensor) -> Tensor:
    return nn.Parameter(part.clone(), requires_grad=whole.requires_grad) if isinstance(whole, nn.Parameter) else part.clone()


def _resize(module: nn.Module, side: str, size: int) -> None:
    for name in SIZES[side]:
        if hasattr(module, name):
            setattr(module, name, size)
