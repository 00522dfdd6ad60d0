"""Examples: one input of a network, as a tensor, or a tuple or dict of tensors. Any structure within; what is no tensor stays."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def call(network: nn.Module, example: Any) -> Any:
    """`network(tensor)`, `network(*tuple)` or `network(**dict)`."""
    if isinstance(example, Mapping):
        return network(**example)
    return network(*example) if isinstance(example, list | tuple) else network(example)


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors within dicts, lists, tuples and dataclasses (the outputs of Hugging Face are both), in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from (tensor for item in value.values() for tensor in tensors(item))
    elif isinstance(value, list | tuple):
        yield from (tensor for item in value for tensor in tensors(item))
    elif hasattr(value, "__dataclass_fields__"):
        yield from tensors(vars(value))


def changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same structure with `change` done to every tensor in it."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: changed(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [changed(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def noise(example: Any, generator: torch.Generator) -> Any:
    """The same with normal noise in place of every float: an example of zeros or ones would hide what differs."""

    def drawn(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        return torch.randn(tensor.shape, generator=generator).to(tensor)

    return changed(example, drawn)


def twice(example: Any) -> Any:
    """The same input two times in one batch: norms over a batch of one can have no variance."""
    return changed(example, lambda tensor: torch.cat([tensor, tensor]) if tensor.dim() else tensor)
