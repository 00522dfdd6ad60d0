"""A network that is really smaller: without the channels that a mask cut off, and still a plain module of the same kind."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from autosparse.models.channels.cut import cut, fold_constants, smaller
from autosparse.models.channels.dead import dead_channel_parameters, dead_channels, renamed_mask
from autosparse.models.channels.examples import noise, tensors
from autosparse.models.channels.plain import plain_copy
from autosparse.models.errors import CollapseError, SpecError, not_allowed
from autosparse.models.masks import mask as masks
from autosparse.models.masks.mask import Mask
from autosparse.models.masks.reparametrized import copied
from autosparse.models.networks.calls import call, mapped
from autosparse.models.networks.wrappers import plain
from autosparse.models.seeding import generator

TOLERANCE = 1e-5  # of the largest output
LOW = (torch.float16, torch.bfloat16)  # compared in float32 and to their own precision, to which biases are rounded


def compact(model: nn.Module, example: Any, mask: Mask | None = None) -> nn.Module:
    """A smaller copy of `model` without every channel and unit that `mask` cut off from the input or from the output.

    The copy is a plain network of the same classes on the same device, in the mode `model` is in; parametrized weights become
    plain ones, wrappers (DataParallel, compile) are gone. With a mask it is the masked network that gets smaller, whether its
    weights are zero by now or not; without one, weights that are zero count as cut. `example` is one input: a tensor, or a tuple
    or dict of tensors. Its size does not matter, as long as the network runs. Heads of attention leave whole. What is not understood
    (an operation, torch's own packed attention) and what a LayerNorm sees stays.

    Before it is returned the copy gives the outputs of the big network on the example and on noise, to 1e-5 of the largest.
    Raises SpecError when it does not, when the example does not run, and when a dead channel holds a constant that no bias can
    take up: in a network that was held from the start none does. Raises CollapseError for a mask without a path to an output.
    """
    return compact_with_mask(model, example, mask)[0]


def compact_with_mask(model: nn.Module, example: Any, mask: Mask | None = None) -> tuple[nn.Module, Mask]:
    """What `compact` returns, and the mask of the smaller network: what is left of `mask`, or of the weights that are not zero."""
    if mask is not None and not isinstance(mask, Mapping):
        raise not_allowed("mask", type(mask).__name__, "a mask; compact(model, example, mask) is the order")
    big, renamed = plain_copy(model)
    if mask is not None:
        mask = renamed_mask(mask, renamed)
        masks.apply_(big, mask)
    kept = {name: weight.detach() != 0 for name, weight in masks.prunable(big).items()} if mask is None else mask
    was_training, _ = big.training, big.eval()
    inputs = [example, noise(example, generator(0, "compact"))]
    try:
        outputs = [_outputs(big, each) for each in inputs]
    except Exception as error:  # whatever a foreign network says of an input that is not its own
        raise not_allowed("example", _shapes(example), f"one input of the network ({line(error)})") from error
    if any(output.isnan().any() for output in outputs[0]):
        raise not_allowed("model", type(big).__name__, "a network whose outputs for the example are numbers, none of them NaN")
    problem = ""
    for care in range(3):
        dead = dead_channels(big, example, kept, care=care)
        if not dead.ledger.connected:
            raise CollapseError(
                f"compact: {type(big).__name__}: the mask leaves no path from the input to the output; nothing would be left"
            )
        small, _ = plain_copy(big)
        fold_constants(small, dead)
        cut(small, dead)
        problem = _wrong(small, inputs, outputs)
        if not problem:
            return small.train(was_training), {name: smaller(name, keep, dead) for name, keep in kept.items()}
    raise SpecError(f"compact: {type(big).__name__}: the smaller network would not be the same function ({problem}); nothing was changed")


@torch.no_grad()
def compact_to_train(model: nn.Module, example: Any, mask: Mask) -> tuple[nn.Module, Mask]:
    """What `compact_with_mask` returns of a network whose dead channels hold zero, for a training in its place.

    Weights, biases and norms of channels that the mask cut off are zero first, so none holds a constant. A training of the smaller
    network under its mask is that of the big one with these entries held at zero, at every step (`hold` with an example). Errors as
    `compact`; `model` stays as it is.
    """
    big = copied(plain(model))
    for name, entries in dead_channel_parameters(big, mask, example).items():
        big.get_parameter(name).masked_fill_(entries, 0)
    return compact_with_mask(big, example, mask)


@dataclass(frozen=True)
class Size:
    """What a network takes: numbers of its parameters and multiply-adds, MB of its parameters and buffers."""

    parameters: int
    multiply_adds: int
    megabytes: float


def size(model: nn.Module, example: Any) -> Size:
    """Parameters, multiply-adds for the example, megabytes (1e6 bytes) of a network, which stays as it is."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.enable_grad(), _Count() as counted:  # with gradients, so that attention takes no short cut past its layers
            call(model.eval(), example)
    finally:
        for module, mode in modes:
            module.training = mode
    held = [*model.parameters(), *model.buffers()]
    megabytes = sum(tensor.numel() * tensor.element_size() for tensor in held) / 1e6
    return Size(sum(param.numel() for param in model.parameters()), counted.flops // 2, megabytes)


class CompactionTable(list[dict[str, Any]]):
    """Rows before, after and ratio; as text a line each of parameters, multiply-adds and megabytes."""

    def __str__(self) -> str:
        before, after, ratio = self
        lines = []
        for what, unit in (("parameters", ""), ("multiply_adds", ""), ("megabytes", " MB")):
            amounts = f"{before[what]:,.4g} -> {after[what]:,.4g}" if unit else f"{before[what]:,} -> {after[what]:,}"
            lines.append(f"{what.replace('_', '-'):14} {amounts}{unit} ({ratio[what]:.3g} times smaller)")
        return "\n".join(lines)


def compaction_table(before: nn.Module, after: nn.Module, example: Any) -> CompactionTable:
    """Rows before, after and how many times less: parameters, multiply-adds for the example, megabytes. `print` shows them as text."""
    sizes = {"before": vars(size(before, example)), "after": vars(size(after, example))}
    ratio = {key: value / max(sizes["after"][key], 1e-9) for key, value in sizes["before"].items()}
    return CompactionTable({"network": name, **values} for name, values in (*sizes.items(), ("ratio", ratio)))


class _Count(TorchDispatchMode):
    """Adds up the operations of what runs inside, by torch's own formulas."""

    flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        self.flops += formula(*args, **(kwargs or {}), out_val=result) if formula else 0
        return result


@torch.no_grad()
def _outputs(network: nn.Module, example: Any) -> list[Tensor]:
    if any(param.dtype in LOW for param in network.parameters()):
        network, example = copied(network).float(), mapped(lambda tensor: tensor.float() if tensor.dtype in LOW else tensor, example)
    return [tensor.detach().clone() for tensor in tensors(call(network, example))]


def _wrong(small: nn.Module, inputs: Iterable[Any], outputs: Iterable[list[Tensor]]) -> str:
    """What is wrong with the small network, empty where nothing is."""
    tolerance = max([TOLERANCE, *(torch.finfo(param.dtype).eps for param in small.parameters() if param.dtype in LOW)])
    for each, wanted in zip(inputs, outputs, strict=True):
        try:
            found = _outputs(small.eval(), each)
        except Exception as error:  # sizes that are written into the code of a foreign network
            return line(error)
        if problem := difference(found, wanted, tolerance):
            return problem
    return ""


def difference(found: Sequence[Tensor], wanted: Sequence[Tensor], tolerance: float = TOLERANCE) -> str:
    """In which way outputs are not those wanted, to `tolerance` of the largest number in each; empty where they are."""
    if len(found) != len(wanted):
        return f"{len(found)} outputs instead of {len(wanted)}"
    for one, other in zip(found, wanted, strict=True):
        if one.shape != other.shape:
            return f"outputs of shape {tuple(one.shape)} instead of {tuple(other.shape)}"
        if not other.numel() or torch.equal(one, other):
            continue
        most, apart = float(other.abs().max()), float((one - other).abs().max())
        if not apart <= tolerance * most:
            return f"outputs differ by {apart:.2g} where the largest is {most:.2g}, more than {tolerance:g} of it"
    return ""


def line(error: Exception) -> str:
    """An error of another program as one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _shapes(example: Any) -> Any:
    return mapped(lambda tensor: tuple(tensor.shape), example)
