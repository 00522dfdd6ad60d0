"""Tensors and training states as bytes, without pickle: safetensors for the tensors, JSON for everything else."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from autosparse.models.errors import DataError
from autosparse.storage.damage import damaged
from autosparse.storage.disk import disk_error
from autosparse.storage.plain_json import load_json

HEADER_KEY = "autosparse"  # one metadata key, because safetensors writes several in an arbitrary order
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
CHECKPOINT_FILES = (MODEL, OPTIMIZER, STATE)
TENSOR = "__tensor__"


class TrainingState(NamedTuple):
    """What a training continues from: two state dicts and what the caller put into `progress`."""

    network: dict[str, Tensor]
    optimizer: dict[str, Any]
    progress: dict[str, Any]


def dump_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file holding the tensors, their order, the metadata and a SHA-256 of all that; equal input gives equal bytes."""
    plain = {name: torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach()) for name, tensor in tensors.items()}
    header = {"order": list(plain), "metadata": dict(metadata or {})}
    return safetensors.torch.save(plain, {HEADER_KEY: json.dumps(header | {"sha256": _digest(plain, header)})})


def load_tensors(data: bytes, *, source: str = "tensors") -> dict[str, Tensor]:
    """The tensors on the CPU, in the order they were given.

    Raises DataError, which names `source`, for anything else, and where the content is not what was written.
    """
    header = _header(data, source)
    try:
        tensors = safetensors.torch.load(data)
        ordered = {name: tensors.pop(name) for name in header["order"]} | tensors
        if "sha256" in header and header["sha256"] != _digest(ordered, header):
            raise ValueError("its content has not the SHA-256 that it was written with")
        return ordered
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _corrupt(source, error) from error


def read_metadata(data: bytes, *, source: str = "tensors") -> dict[str, str]:
    """The metadata given to `dump_tensors`; empty for a safetensors file of another program. Raises DataError."""
    return _header(data, source)["metadata"]


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps([header["order"], header["metadata"]]).encode())
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _header(data: bytes, source: str) -> dict[str, Any]:
    try:
        length = int.from_bytes(data[:8], "little")
        described = load_json(data[8 : 8 + length]).get("__metadata__", {})
        return {"order": [], "metadata": {}} | load_json(described.get(HEADER_KEY, "{}"))
    except (ValueError, TypeError, AttributeError) as error:
        raise _corrupt(source, error) from error


def _corrupt(source: str, error: Exception) -> DataError:
    return damaged(source, f"not an intact safetensors file ({' '.join(str(error).split())})")


def save_training_state(
    directory: Path, network_state: Mapping[str, Tensor], optimizer_state: Mapping[str, Any], progress: Mapping[str, Any]
) -> None:
    """Write `model.safetensors`, `optimizer.safetensors` and, last, `state.json` with the sha256 of both into `directory`.

    `optimizer_state` is a torch optimizer's state dict; its tensors may be anywhere in it, the rest and `progress` must be JSON
    (tuples come back as lists). Raises DataError with the bytes needed and free when the disk is full.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    skeleton = _take_out(dict(optimizer_state), "", tensors)
    files = {MODEL: dump_tensors(network_state), OPTIMIZER: dump_tensors(tensors)}
    for name, data in files.items():
        _write(directory / name, data)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    state = {"sha256": digests, "optimizer": skeleton, "progress": dict(progress)}
    _write(directory / STATE, json.dumps(state).encode())


def load_training_state(directory: Path) -> TrainingState:
    """Read what `save_training_state` wrote, bit-exact, on the CPU. Raises DataError naming the file that cannot be used."""
    path = directory / STATE
    try:
        state = load_json(_read(path))
        digests, skeleton, progress = state["sha256"], state["optimizer"], state["progress"]
        files = {name: _checked(directory / name, digests[name]) for name in (MODEL, OPTIMIZER)}
        parts = {name: load_tensors(data, source=str(directory / name)) for name, data in files.items()}
        optimizer = _put_back(skeleton, parts[OPTIMIZER])
        optimizer["state"] = {int(index): values for index, values in optimizer["state"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, f"not a training state ({type(error).__name__}: {error})") from error
    return TrainingState(parts[MODEL], optimizer, progress)


def _take_out(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON, with each tensor moved to `tensors` and replaced by its key there."""
    if isinstance(value, Tensor):
        tensors[path] = value
        return {TENSOR: path}
    if isinstance(value, Mapping):
        return {str(key): _take_out(item, f"{path}/{key}", tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_take_out(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
    return value


def _put_back(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if TENSOR in value:
            return tensors[value[TENSOR]]
        return {key: _put_back(item, tensors) for key, item in value.items()}
    return [_put_back(item, tensors) for item in value] if isinstance(value, list) else value


def _write(path: Path, data: bytes) -> None:
    try:
        _put(path, data)
    except OSError as error:
        raise disk_error(path, error, len(data)) from error


def _put(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _checked(path: Path, digest: str) -> bytes:
    data = _read(path)
    if hashlib.sha256(data).hexdigest() != digest:
        raise damaged(path, f"its sha256 is not the one in {STATE}: the file is corrupt or of another training state")
    return data
