"""`autosparse inspect`, `compact` and `export`: what a mask keeps, and the smaller network it leaves."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from torch import Tensor, nn

from autosparse.library.compaction import compact, compaction_table
from autosparse.library.export import check_path, export
from autosparse.library.folder import read_folder
from autosparse.library.mask import Mask
from autosparse.models.errors import not_allowed
from autosparse.models.masks.mask import apply_
from autosparse.models.networks import flops
from autosparse.storage.open_store import open_store
from autosparse.tasks import settings

COMPACTED = ("network.onnx", "network.safetensors", "architecture.txt", "compacted.json")


def print_inspected(place: Path, arm: str | None, *, as_json: bool) -> None:
    """Per layer what the mask keeps, then what stays dense; as JSON for programs."""
    network, mask, example = _found(place, arm)
    if not as_json:
        Console().print(mask.summary(network, example), highlight=False, markup=False)
        return
    Console(soft_wrap=True).print_json(json.dumps(described(network, mask, example)))


def described(network: nn.Module, mask: Mask, example: Tensor) -> dict[str, Any]:
    """What `inspect` knows, as JSON-like data."""
    counts, change = flops.macs(network, example), mask.macs(network, example)
    layers = {
        name: {
            "shape": list(keep.shape),
            "kept": int(keep.sum()),
            "density": float(keep.double().mean()),
            "multiply_adds": counts.get(flops.weight_name(name)),
        }
        for name, keep in mask.items()
    }
    about = {name: value for name, value in asdict(mask.about).items() if name not in ("outside", "left_out")}
    outside = {name: {"shape": list(shape), "why": mask.about.left_out.get(name)} for name, shape in (mask.about.outside or {}).items()}
    return {
        **about,
        "kept": mask.kept,
        "total": mask.total,
        "multiply_adds": {"before": change.before, "after": change.after},
        "layers": layers,
        "not_prunable": outside,
    }


def write_compacted(place: Path, arm: str | None, out: Path) -> None:
    """Write the smaller network into a new folder: ONNX, safetensors, its architecture, and sizes before and after."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise not_allowed("--out", str(out), "a new or empty folder")
    network, mask, example = _found(place, arm)
    apply_(network, mask)
    network.eval()
    small = compact(network, example, mask)
    table = compaction_table(network, small, example)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".compact-", dir=out.parent) as parent:  # all of it or nothing
        (folder := Path(parent) / out.name).mkdir()
        onnx, tensors, architecture, sizes = (folder / name for name in COMPACTED)
        export(small, example, onnx)
        export(small, example, tensors)
        architecture.write_text(f"{small}\n")
        sizes.write_text(json.dumps(table, indent=2))
        os.replace(folder, out)
    about = mask.about
    if arm is not None:
        Console().print(
            f"{about.method}, density {about.density or mask.density:g}, seed {about.seed}: its trained weights", highlight=False
        )
    Console().print(str(table), highlight=False)
    Console().print(f"-> {out}", highlight=False, markup=False)


def write_exported(place: Path, arm: str | None, out: Path) -> None:
    """Write the network, its masked weights zero, to a file by its ending."""
    check_path(out)
    network, mask, example = _found(place, arm)
    apply_(network, mask)
    export(network.eval(), example, out)
    Console().print(f"-> {out}", highlight=False, markup=False)


def _found(place: Path, arm: str | None) -> tuple[nn.Module, Mask, Tensor]:
    if arm is None:
        network, mask, built = read_folder(place)
        return network, mask, built.example()
    from autosparse.tasks.arm_networks import trained_network

    return trained_network(open_store(settings.load().storage), str(place), arm)
