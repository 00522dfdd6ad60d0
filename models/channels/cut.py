"""The network without its dead channels: tensors are cut, and the numbers in modules that say how long they are."""

from typing import Any

import torch
from torch import Tensor, nn

from autosparse.models.channels.dead import Dead
from autosparse.models.errors import SpecError

BATCH_AND_INSTANCE = (nn.modules.batchnorm._NormBase,)
CONVOLUTIONS = (nn.modules.conv._ConvNd,)


@torch.no_grad()
def fold_constants(network: nn.Module, dead: Dead) -> None:
    """Add to the biases of layers, in place, what dead channels with a constant value bring them.

    Nothing of the input reaches such a channel, but a bias or the shift of a norm does. Raises SpecError where a bias cannot
    take it up: the constant is not the same everywhere, as behind padding, or the layer pads with zeros itself.
    """
    seen = set()
    for constant in dead.ledger.constants:
        out = dead.removed[constant.inputs] & ~dead.ledger.reached[constant.inputs] & (constant.values != 0)
        stays = ~dead.removed[constant.outputs]
        layer: Any = network.get_submodule(constant.weight.rpartition(".")[0])
        weight = _matrix(layer, constant.weight.rpartition(".")[2], dead)
        touched = weight.ne(0).any(2) & (stays[:, None] & out).to(weight.device)
        if not touched.any():
            continue
        values = constant.values.to(weight)
        if not constant.foldable or constant.weight in seen or values[touched.any(0)].isnan().any():
            raise SpecError(
                f"compact: {int(touched.any(0).count_nonzero())} channels that the mask cut off bring {constant.weight} a constant that "
                "no bias can take up, so the function would change; allowed: channels at zero (hold the mask from initialization on)"
            )
        seen.add(constant.weight)
        added = (weight.sum(2) * torch.where(touched.any(0), values, 0)).sum(1)
        if getattr(layer, "bias", None) is None:
            layer.bias = nn.Parameter(torch.zeros_like(added))
            dead.ledger.axes[constant.weight.rpartition(".")[0] + ".bias"] = {0: constant.outputs}
        layer.bias += added


def _matrix(layer: Any, name: str, dead: Dead) -> Tensor:
    """The weight as (outputs, inputs, kernel)."""
    weight = getattr(layer, name).flatten(2) if getattr(layer, name).dim() > 2 else getattr(layer, name).unsqueeze(2)
    if getattr(layer, "transposed", False):
        return weight.transpose(0, 1)
    groups = getattr(layer, "groups", 1)
    if groups == 1:
        return weight
    blocks = weight.abs().sum(2).view(groups, -1, weight.shape[1])
    return torch.block_diag(*blocks).unsqueeze(2)


@torch.no_grad()
def cut(network: nn.Module, dead: Dead) -> None:
    """Remove the dead channels from a plain network, in place."""
    tensors: dict[str, Tensor] = dict(network.named_parameters()) | dict(network.named_buffers())
    parts = {
        id(tensor): _part(tensor, smaller(name, tensor.detach(), dead)) for name, tensor in tensors.items() if _has_channels(name, dead)
    }
    groups = {id(tensor): _groups_left(dead, name) for name, tensor in tensors.items() if name in dead.ledger.groups}
    for module in network.modules():
        numbers = [groups[id(tensor)] for tensor in module._parameters.values() if id(tensor) in groups]
        slots: Any
        for slots in (module._parameters, module._buffers):
            slots |= {name: parts[id(tensor)] for name, tensor in slots.items() if id(tensor) in parts}
        _resize(module, numbers[0] if numbers else None)


def smaller(name: str, tensor: Tensor, dead: Dead) -> Tensor:
    """Without its dead channels, a tensor shaped like the parameter or buffer of that name: itself, or its mask."""
    part, group = tensor, dead.ledger.groups.get(name)
    if name in dead.ledger.elements:
        stays = ~dead.removed[dead.ledger.elements[name]]
        for axis in range(part.dim()):
            part = part.index_select(axis, _indices(stays.movedim(axis, 0).flatten(1).any(1) if stays.dim() > 1 else stays, part))
    if group is not None and group.outputs is not None:
        return _cut_groups(part, ~dead.removed[group.inputs], ~dead.removed[group.outputs])
    for axis in dead.ledger.axes.get(name, {}):
        part = part.index_select(axis, _indices(dead.alive(name, axis), part))
    return part


def _has_channels(name: str, dead: Dead) -> bool:
    return name in dead.ledger.axes or name in dead.ledger.elements


def _part(whole: Tensor, part: Tensor) -> Tensor:
    return nn.Parameter(part.clone(), requires_grad=whole.requires_grad) if isinstance(whole, nn.Parameter) else part.clone()


def _cut_groups(weight: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor:
    """`weight` (all outputs, inputs of a group, ...); both sides (groups, size) say what stays."""
    blocks = weight.unflatten(0, outputs.shape)
    left = outputs.any(1).nonzero().flatten().tolist()
    return torch.cat([blocks[g][_indices(outputs[g], weight)][:, _indices(inputs[g], weight)] for g in left])


def _groups_left(dead: Dead, name: str) -> int:
    group = dead.ledger.groups[name]
    return int((~dead.removed[group.inputs if group.outputs is None else group.outputs]).any(1).count_nonzero())


def _indices(stays: Tensor, like: Tensor) -> Tensor:
    return stays.nonzero().flatten().to(like.device)


def _resize(module: Any, groups: int | None) -> None:
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, CONVOLUTIONS):
        module.groups = groups if groups is not None else module.groups
        first, second = module.weight.shape[:2]
        sides = (second, first) if module.transposed else (first, second)
        module.out_channels, module.in_channels = (
            size * (module.groups if index == int(not module.transposed) else 1) for index, size in enumerate(sides)
        )
    elif isinstance(module, BATCH_AND_INSTANCE):
        numbers = [tensor for tensor in (module.weight, module.running_mean) if tensor is not None]
        module.num_features = len(numbers[0]) if numbers else module.num_features
    elif isinstance(module, nn.GroupNorm):
        module.num_groups, module.num_channels = groups or module.num_groups, len(module.weight)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)
