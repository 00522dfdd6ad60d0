"""What becomes of examples (one input of a network: a tensor, or a tuple or dict of tensors) and what is in outputs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from autosparse.models.networks.calls import mapped


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


def image(shape: Sequence[int]) -> Tensor:
    """One image of noise (1, channels, height, width), the same each time; `shape` is without the batch dimension."""
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))


def twice(example: Any) -> Any:
    """The same input two times in one batch: norms over a batch of one can have no variance."""
    return mapped(lambda tensor: torch.cat([tensor, tensor]) if tensor.dim() else tensor, example)
