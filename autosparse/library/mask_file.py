"""The file of a mask: safetensors with one bool tensor per parameter, and what is known about it as metadata.

Any program that reads safetensors can use it. The files of runs (eight weights to a byte) are read as well.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autosparse.models.errors import DataError
from autosparse.storage.checkpoints import dump_tensors, load_tensors, read_metadata
from autosparse.storage.disk import disk_error
from autosparse.storage.mask_files import SHAPES, load_mask

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class About:
    """Where a mask comes from; what is not known is None.

    `density` is what was asked for. `weights` is the digest of the weights it was made for (`weights_digest`). `outside` has the shapes of
    the network's parameters that are not in the mask, `left_out` says why a matrix is among them. `notes`: sentences that a person
    should read.
    """

    method: str | None = None
    density: float | None = None
    seed: int | None = None
    network: str | None = None
    weights: str | None = None
    outside: Mapping[str, Shape] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


def weights_digest(weights: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> str:
    """SHA-256 over parameters by name, type, shape and value, in the order of their names, each masked weight taken as zero.

    So it is the same before and after the mask is applied, on any device and in any memory layout.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = weights[name].detach().to("cpu", memory_format=torch.contiguous_format)
        if name in mask:
            values = values.masked_fill(~mask[name].cpu(), 0)
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_mask(path: Path, mask: Mapping[str, Tensor], about: About) -> None:
    """Write the file. Raises DataError where it cannot be written."""
    _write(path, dump_tensors(mask, _metadata(about)))


def read_mask(path: Path) -> tuple[dict[str, Tensor], About]:
    """Tensors on the CPU, as they are in the file, and what it says of them. Raises DataError for anything but a mask."""
    data = _read(path)
    metadata = read_metadata(data, source=str(path))
    if SHAPES in metadata:
        return load_mask(data, source=str(path)), About()
    try:
        return load_tensors(data, source=str(path)), _about(metadata)
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a mask file ({type(error).__name__}: {error})") from error


def weights_path(path: str | Path) -> Path:
    """Where the initial weights of a mask lie: `mask.weights.safetensors` beside `mask.safetensors`."""
    return Path(path).with_suffix(".weights.safetensors")


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write the initial weights beside the mask file `path`. Raises DataError where that cannot be done."""
    _write(weights_path(path), dump_tensors(weights))


def initial_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict that lies beside the mask file `path`, on the CPU. Raises DataError where there is none."""
    beside = weights_path(path)
    return load_tensors(_read(beside), source=str(beside))


def some(names: Iterable[str], count: int = 3) -> str:
    """A few of the names, and how many more there are."""
    listed = list(names)
    return ", ".join(listed[:count]) + (f" and {len(listed) - count} more" if len(listed) > count else "")


def _metadata(about: About) -> dict[str, str]:
    plain: dict[str, Any] = {"method": about.method, "network": about.network, "weights": about.weights}
    if about.density is not None:
        plain["density"] = f"{about.density:.9g}"
    if about.seed is not None:
        plain["seed"] = str(about.seed)
    if about.outside is not None:
        plain["outside"] = json.dumps({name: list(shape) for name, shape in about.outside.items()})
    plain |= {"left_out": json.dumps(dict(about.left_out)), "notes": json.dumps(about.notes)}
    return {name: value for name, value in plain.items() if value is not None} | {"versions": json.dumps(dict(about.versions))}


def _about(metadata: Mapping[str, str]) -> About:
    outside = json.loads(metadata["outside"]) if "outside" in metadata else None
    return About(
        method=metadata.get("method", metadata.get("scorer")),  # the first files of `autosparse prune` name the scorer
        density=float(metadata["density"]) if "density" in metadata else None,
        seed=int(metadata["seed"]) if "seed" in metadata else None,
        network=metadata.get("network"),
        weights=metadata.get("weights"),
        outside=None if outside is None else {name: tuple(shape) for name, shape in outside.items()},
        left_out=dict(json.loads(metadata.get("left_out", "{}"))),
        notes=tuple(json.loads(metadata.get("notes", "[]"))),
        versions=dict(json.loads(metadata.get("versions", "{}"))),
    )


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise disk_error(path, error, len(data)) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise disk_error(path, error) from error
