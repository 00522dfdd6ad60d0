"""Bytes of a network on disk in half precision, its zeros left out where that is smaller, with what it takes to say where they are."""

from collections.abc import Iterable

import torch
from torch import Tensor

VALUE, POINTER = 2, 4  # bytes of a number in fp16 and of a row pointer
WAYS = ("dense", "bitmap", "csr")


def stored_bytes(tensors: Iterable[Tensor]) -> dict[str, int]:
    """Bytes of the tensors by way of storage, and `best`: the sum of the smallest way of each tensor.

    dense: 2 bytes a number. bitmap: 1 bit a number, rounded up to bytes, and 2 bytes for each that is not zero. csr: for each that is not
    zero 2 bytes and its column, in 1, 2 or 4 bytes as the number of columns needs, and a pointer of 4 bytes for each row and the end.
    A row is an index of the first axis, its columns are all the other axes. Tensors of fewer than two axes (biases, norms) are dense in
    every way. Whole numbers that a network carries along (the batches that a norm counted) are not stored.
    """
    sizes = [_sizes(tensor) for tensor in tensors if tensor.is_floating_point()]
    return {**{way: sum(size[way] for size in sizes) for way in WAYS}, "best": sum(min(size.values()) for size in sizes)}


def _sizes(tensor: Tensor) -> dict[str, int]:
    dense = VALUE * tensor.numel()
    if tensor.dim() < 2 or not tensor.numel():
        return dict.fromkeys(WAYS, dense)
    kept, rows = int(torch.count_nonzero(tensor.detach())), tensor.shape[0]
    columns = tensor.numel() // rows
    index = 1 if columns <= 2**8 else 2 if columns <= 2**16 else 4
    return {"dense": dense, "bitmap": -(-tensor.numel() // 8) + VALUE * kept, "csr": (VALUE + index) * kept + POINTER * (rows + 1)}
