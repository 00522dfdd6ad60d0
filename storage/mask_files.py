"""Masks as bytes: one bit per weight, in a safetensors file whose metadata holds the shapes."""

import json

import numpy as np
import torch
from torch import Tensor

from autosparse.storage.checkpoints import dump_tensors, load_tensors, read_metadata
from autosparse.storage.damage import damaged
from autosparse.storage.plain_json import load_json

SHAPES = "shapes"


def dump_mask(mask: dict[str, Tensor]) -> bytes:
    """Pack bool tensors, True = kept, eight to a byte in row-major order; equal masks give equal bytes."""
    assert all(keep.dtype == torch.bool for keep in mask.values()), "a mask holds bool tensors"
    packed = {name: torch.from_numpy(np.packbits(keep.cpu().numpy())) for name, keep in mask.items()}
    return dump_tensors(packed, {SHAPES: json.dumps({name: list(keep.shape) for name, keep in mask.items()})})


def load_mask(data: bytes, *, source: str = "mask") -> dict[str, Tensor]:
    """The mask on the CPU, layers in the order they were given. Raises DataError, which names `source`, for anything else."""
    packed = load_tensors(data, source=source)
    try:
        shapes: dict[str, list[int]] = load_json(read_metadata(data, source=source)[SHAPES])
        if shapes.keys() != packed.keys():
            raise ValueError("layers and shapes differ")
        return {name: _unpack(packed[name], shape) for name, shape in shapes.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(source, f"not a mask file ({type(error).__name__}: {error})") from error


def _unpack(packed: Tensor, shape: list[int]) -> Tensor:
    size = int(np.prod(shape, dtype=np.int64))
    if packed.dtype != torch.uint8 or packed.shape != (-(-size // 8),):
        raise ValueError(f"{packed.numel()} bytes for shape {shape}")
    return torch.from_numpy(np.unpackbits(packed.numpy(), count=size).astype(bool).reshape(shape))
