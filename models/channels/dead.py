"""Which channels a mask cut off from the input or the output of a network, and can be removed without a trace."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autosparse.models.channels.ledger import Grouped, Ledger
from autosparse.models.channels.plain import plain_copy
from autosparse.models.channels.trace import Trace
from autosparse.models.masks import mask as masks
from autosparse.models.masks.mask import Mask
from autosparse.models.masks.reparametrized import copied
from autosparse.models.networks.calls import twice


@dataclass(frozen=True)
class Dead:
    """What was seen of a network, and which of its channel ids can be removed (ids,)."""

    ledger: Ledger
    removed: Tensor

    def alive(self, tensor: str, axis: int) -> Tensor:
        """Which indices of an axis of a parameter or buffer stay (size,)."""
        return ~self.removed[self.ledger.axes[tensor][axis]]


def dead_channels(network: nn.Module, example: Any, mask: Mask, *, care: int = 0) -> Dead:
    """The channels of a plain network that nothing of the input reaches, or that reach nothing of the output, under `mask`.

    `example` is one input: a tensor, or a tuple or dict of tensors. A masked copy of the network runs in eval mode and then, where
    that is possible, in training mode; `care` as in `Trace`.
    """
    copy = copied(network)
    masks.apply_(copy, mask)
    ledger = Ledger()
    devices = {param.device for param in copy.parameters() if param.is_cuda}
    with torch.no_grad(), torch.random.fork_rng(devices):
        copy.eval()
        Trace(copy, mask, ledger, constants=True, care=care).run(copy, example)
        copy.train()
        for seen in (twice(example), example):
            try:
                Trace(copy, mask, ledger, constants=False, care=care).run(copy, seen)
                break
            except Exception:  # what may not be trained on one example is compacted as it runs in eval mode
                continue
    needed, classes = ledger.needed(), ledger.classes()
    return Dead(ledger, allowed(ledger, ~(ledger.reached & needed), classes))


def dead_channel_parameters(network: nn.Module, mask: Mask, example: Any) -> dict[str, Tensor]:
    """Entries of weights, biases and norms that belong to channels that `compact` would remove: name -> bool, of its shape.

    Held at zero together with the mask, they keep the network and its compacted copy one function through any training: a
    channel that is cut off holds zero, and a norm's shift cannot make it a constant. Parameters without such entries are left out.
    """
    copy, renamed = plain_copy(network)
    dead = dead_channels(copy, example, renamed_mask(mask, renamed))
    names = {there: here for here, there in renamed.items()}
    shapes = dict(network.named_parameters())
    found = {}
    for name, param in copy.named_parameters():
        entries = entries_of(dead, name, param)
        here = names.get(name, name)
        if entries.any() and here in shapes and shapes[here].shape == entries.shape:
            found[here] = entries.to(param.device)
    return found


def renamed_mask(mask: Mask, renamed: dict[str, str]) -> Mask:
    """The mask for a plain copy; `renamed` as `plain_copy` gives it."""
    return {renamed.get(name, name): keep for name, keep in mask.items()}


def entries_of(dead: Dead, name: str, param: Tensor) -> Tensor:
    entries = torch.zeros(param.shape, dtype=torch.bool)
    if name in dead.ledger.elements:
        entries |= dead.removed[dead.ledger.elements[name]]
    for axis, ids in dead.ledger.axes.get(name, {}).items():
        entries |= dead.removed[ids].view([-1 if index == axis else 1 for index in range(param.dim())])
    group = dead.ledger.groups.get(name)
    if group is not None and group.outputs is not None:
        columns = dead.removed[group.inputs].unsqueeze(1)  # (groups, 1, inputs)
        entries.view(*group.outputs.shape, group.inputs.shape[1], -1).logical_or_(columns.unsqueeze(-1))
    return entries


def allowed(ledger: Ledger, dead: Tensor, classes: Tensor) -> Tensor:
    """Those of the `dead` ids (ids,) that can leave: with all that they are tied to, and so that every tensor stays a whole one."""
    gone = torch.ones_like(dead)
    gone[classes[~dead]] = False
    gone[classes[0]] = False
    left = -1
    while left != (left := int(gone[classes].count_nonzero())):
        for ids in (ids for axes in ledger.axes.values() for ids in axes.values()):
            if gone[classes[ids]].all():
                gone[classes[ids[:1]]] = False  # no layer without a channel
        for ids in (*ledger.elements.values(), *ledger.rectangles):
            gone[classes[ids[_ragged(gone[classes[ids]])]]] = False
        for group in ledger.groups.values():
            _even(gone, classes, group)
    return gone[classes]


def _ragged(dead: Tensor) -> Tensor:
    """Dead elements that are in no hyperplane of dead elements."""
    whole = torch.zeros_like(dead)
    for axis in range(dead.dim()):
        others = [other for other in range(dead.dim()) if other != axis]
        whole |= dead.all(dim=tuple(others), keepdim=True) if others else dead
    return dead & ~whole


def _even(gone: Tensor, classes: Tensor, group: Grouped) -> None:
    """Groups leave whole; from those that stay of a convolution, equally many channels leave."""
    sides = [classes[ids] for ids in (group.inputs, group.outputs) if ids is not None]
    leaves = torch.stack([gone[side].all(1) for side in sides]).all(0)
    for side in sides:
        dead = gone[side] & ~leaves[:, None]
        least = 0
        if group.outputs is not None and not leaves.all():
            least = min(int(dead.sum(1)[~leaves].min()), side.shape[1] - 1)
        gone[side[dead & (dead.cumsum(1) > least)]] = False
