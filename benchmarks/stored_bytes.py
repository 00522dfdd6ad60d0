"""What a pruned network weighs in a file, by the ways in which zeros are stored: weights in fp16, indices counted."""

import gzip
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from math import ceil

import torch
from torch import Tensor, nn

from autosparse.storage.checkpoints import dump_tensors

VALUE, POINTER = 2, 4  # bytes of an fp16 number and of a row's start
FEW_COLUMNS = 2**16  # as many fit into an index of two bytes


def stored_bytes(masked: nn.Module, mask: Mapping[str, Tensor], compacted: nn.Module, rest: Mapping[str, Tensor]) -> dict[str, int]:
    """Bytes by way of storage. `rest` is the mask of the compacted network; what no mask covers is dense fp16 everywhere.

    gzip is level 6, zstd level 19 and there only where the package `zstandard` is.
    """
    file = _file(masked)
    found = {"dense": len(file), "gzip": len(gzip.compress(file, 6, mtime=0))}
    if find_spec("zstandard"):
        found["zstd"] = len(import_module("zstandard").ZstdCompressor(level=19).compress(file))
    return {
        **found,
        "CSR": _uncovered(masked, mask) + sum(map(csr_bytes, mask.values())),
        "bitmap": _uncovered(masked, mask) + sum(map(bitmap_bytes, mask.values())),
        "compacted": len(_file(compacted)),
        "compacted, bitmap": _uncovered(compacted, rest) + sum(map(bitmap_bytes, rest.values())),
    }


def csr_bytes(keep: Tensor) -> int:
    """Rows by all other dimensions: a value and a column for each kept weight, a start for each row and the end."""
    rows, columns = len(keep), keep[0].numel()
    return int(keep.count_nonzero()) * (VALUE + (2 if columns <= FEW_COLUMNS else 4)) + POINTER * (rows + 1)


def bitmap_bytes(keep: Tensor) -> int:
    """A bit for each weight, a value for each kept one."""
    return ceil(keep.numel() / 8) + VALUE * int(keep.count_nonzero())


def _file(network: nn.Module) -> bytes:
    return dump_tensors({name: _half(tensor) for name, tensor in network.state_dict().items()}, {})


def _half(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float16) if tensor.is_floating_point() else tensor


def _uncovered(network: nn.Module, mask: Mapping[str, Tensor]) -> int:
    state = {name: _half(tensor) for name, tensor in network.state_dict().items() if name not in mask}
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())
