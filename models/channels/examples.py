"""What becomes of examples (one input of a network: a tensor, or a tuple or dict of tensors) and what is in outputs."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from autosparse.models.networks.calls import Inputs, Shape, is_shape, mapped


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


def noise(example: Any, generator: torch.Generator) -> Any:
    """The same with normal noise in place of every float: an example of zeros or ones would hide what differs."""

    def drawn(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        return torch.randn(tensor.shape, generator=generator).to(tensor)

    return mapped(drawn, example)


def example_of(shape: Shape) -> Inputs:
    """One image of noise (1, channels, height, width), the same each time, for the sizes of an image; other inputs as they are."""
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)) if is_shape(shape) else shape
