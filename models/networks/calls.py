"""How networks of all kinds are called, and what in their answer is the logits: the one place that knows.

Inputs are a tensor, a tuple of positional arguments or a mapping of keyword arguments. A batch is (inputs, labels), or a mapping that
holds labels too, as Hugging Face's collators make it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.func import functional_call

from autosparse.models.errors import SpecError

Inputs = Any  # a tensor, a tuple of positional arguments, or a mapping of keyword arguments
Shape = Sequence[int] | Inputs  # (channels, height, width) of one image; or inputs as the network takes them
LABELS = ("labels", "label", "targets", "target")
LOGITS = ("logits", "out")  # Hugging Face, torchvision's segmentation


def call(network: nn.Module, inputs: Inputs) -> Any:
    """The output of the network for `inputs`, whatever it is."""
    if isinstance(inputs, Mapping):
        return network(**inputs)
    if isinstance(inputs, tuple | list):
        return network(*inputs)
    return network(inputs)


def answer(network: nn.Module, tensors: Mapping[str, Tensor], inputs: Inputs) -> Tensor:
    """The logits for `inputs` with other parameters and buffers, by name, in the place of the network's own."""
    if isinstance(inputs, Mapping):
        return logits_of(functional_call(network, dict(tensors), (), dict(inputs)))
    return logits_of(functional_call(network, dict(tensors), tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)))


def logits_of(output: Any) -> Tensor:
    """The logits in an output: a tensor itself, `.logits`, `["logits"]` or `["out"]`, the first of a tuple. Raises SpecError."""
    found = output
    while not isinstance(found, Tensor):
        if isinstance(found, Mapping):
            found = next((found[name] for name in LOGITS if name in found), None)
        elif isinstance(found, Sequence) and not isinstance(found, str) and found:
            found = found[0]
        else:
            found = getattr(found, "logits", None)
        if found is None:
            keys = f" with {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
            raise SpecError(
                f"network: an output of type {type(output).__name__}{keys} is not allowed; allowed: a tensor, .logits, "
                f"a tuple that begins with it, or a loss of your own, loss(model, batch)"
            )
    return found


def inputs_of(batch: Any) -> Inputs:
    """What of a batch goes into the network: all but its labels."""
    if isinstance(batch, Mapping):
        return {name: value for name, value in batch.items() if name not in LABELS}
    if isinstance(batch, tuple | list):
        return tuple(batch)[:-1] if len(batch) > 2 else next(iter(batch), ())
    return batch


def has_labels(batch: Any) -> bool:
    """Whether a batch holds labels where `labels_of` looks for them."""
    return isinstance(_labels(batch), Tensor)


def labels_of(batch: Any) -> Tensor:
    """The labels of a batch. Raises SpecError where there are none."""
    found = _labels(batch)
    if not isinstance(found, Tensor):
        raise SpecError(
            f"batches: a {type(batch).__name__} without labels is not allowed; allowed: (inputs, labels), a mapping with "
            f"{' or '.join(map(repr, LABELS[:1]))}, or a loss of your own, loss(model, batch)"
        )
    return found


def _labels(batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return next((batch[name] for name in LABELS if name in batch), None)
    return batch[-1] if isinstance(batch, tuple | list) and len(batch) > 1 else None


def loss_of(network: nn.Module, batch: Any, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The mean loss of a batch: what a network says itself when it is given labels by name, else `loss` of logits and labels."""
    if isinstance(batch, Mapping):
        output = network(**batch)
        own = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
        if own is not None:
            return own
        return loss(logits_of(output), labels_of(batch))
    return loss(logits_of(call(network, inputs_of(batch))), labels_of(batch))


def mapped(function: Callable[[Tensor], Any], structure: Any) -> Any:
    """The structure with each tensor in its tuples, lists and mappings replaced by what `function` makes of it."""
    if isinstance(structure, Tensor):
        return function(structure)
    if isinstance(structure, Mapping):
        return {name: mapped(function, value) for name, value in structure.items()}
    if isinstance(structure, tuple | list):
        kind = list if isinstance(structure, list) else tuple
        return kind(mapped(function, value) for value in structure)
    return structure


def tensors_in(structure: Any) -> list[Tensor]:
    """The tensors of a structure, in order."""
    found: list[Tensor] = []
    mapped(found.append, structure)
    return found


def one_of(inputs: Inputs) -> Inputs:
    """The first example of a batch of inputs, as a batch of one; tensors without a dimension stay as they are."""
    return mapped(lambda tensor: tensor[:1] if tensor.dim() else tensor, inputs)


def twice(inputs: Inputs) -> Inputs:
    """The same input two times in one batch: norms over a batch of one can have no variance."""
    return mapped(lambda tensor: torch.cat([tensor, tensor]) if tensor.dim() else tensor, inputs)


def fitted(network: nn.Module, structure: Any) -> Any:
    """The structure on the network's device, its floating-point tensors in the network's precision."""
    like = next((param for param in network.parameters() if param.is_floating_point()), None)
    if like is None:
        return structure

    def fit(tensor: Tensor) -> Tensor:
        return tensor.to(like.device, like.dtype if tensor.is_floating_point() else None)

    return mapped(fit, structure)


def is_shape(shape: Shape) -> TypeGuard[Sequence[int]]:
    """Whether these are the sizes of one image, not inputs."""
    return isinstance(shape, Sequence) and all(isinstance(size, int) for size in shape)


def blank(shape: Shape, network: nn.Module) -> Inputs:
    """One black image (1, channels, height, width) for the network, or the inputs themselves."""
    return fitted(network, torch.zeros(1, *shape) if is_shape(shape) else shape)
