"""What a pruned network weighs in a file, by the ways in which zeros are stored: those of models/networks/stored.py, and compression."""

import gzip
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from autosparse.models.networks.stored import stored_bytes
from autosparse.storage.checkpoints import dump_tensors


def bytes_by_way(masked: nn.Module, compacted: nn.Module) -> dict[str, int]:
    """Bytes by way of storage of a network with zeros and of the one that `compact` made of it.

    gzip is level 6, zstd level 19 and there only where the package `zstandard` is, both of a safetensors file in fp16.
    """
    file, whole, small = _file(masked), stored_bytes(masked.state_dict().values()), stored_bytes(compacted.state_dict().values())
    found = {"dense": whole["dense"], "gzip": len(gzip.compress(file, 6, mtime=0))}
    if find_spec("zstandard"):
        found["zstd"] = len(import_module("zstandard").ZstdCompressor(level=19).compress(file))
    return {
        **found,
        **{"CSR": whole["csr"], "bitmap": whole["bitmap"]},
        **{"compacted": small["dense"], "compacted, bitmap": small["bitmap"]},
    }


def _file(network: nn.Module) -> bytes:
    return dump_tensors({name: _half(tensor) for name, tensor in network.state_dict().items()}, {})


def _half(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float16) if tensor.is_floating_point() else tensor
