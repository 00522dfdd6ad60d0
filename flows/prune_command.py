"""`autosparse prune`: a person's own torch network, a fitted scorer, a mask; no flow, no Ray, no server but the registry."""

from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from autosparse.library.scorer_files import features_seen, load_scorer, read_scorer
from autosparse.models import seeding
from autosparse.models.errors import not_allowed
from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import global_topk
from autosparse.models.networks.build import build_network
from autosparse.models.scorers.criterion import as_criterion
from autosparse.models.scorers.drift import FirstLook, compare
from autosparse.models.specs.run_specs import NetworkSpec
from autosparse.models.training.images import channel_statistics, normalise
from autosparse.storage.addresses import LOCAL, REGISTRY, S3, address_kind
from autosparse.storage.checkpoints import dump_tensors
from autosparse.storage.disk import disk_error
from autosparse.storage.image_datasets import DATASETS, ImageArrays, load_images
from autosparse.storage.open_store import open_store
from autosparse.tasks import settings as settings_module


def prune_network(
    network: str, scorer: str, density: float, data: str, out: Path, *, batches: int, batch_size: int, min_per_layer: int, seed: int
) -> None:
    """Write the mask of `network` at `density` to `out` and print what each layer keeps. Raises SpecError or DataError."""
    if not 0 < density <= 1:
        raise not_allowed("--density", density, "> 0 and <= 1")
    if ":" not in network:
        raise not_allowed("network", network, "package.module:factory")
    if not out.parent.is_dir():
        raise not_allowed("--out", str(out), "a file in a folder that exists")
    settings = settings_module.load()
    settings_module.export(settings)
    fitted, card = _scorer(scorer, settings)
    arrays = _images(data, settings.cache)
    spec = NetworkSpec(name=network, init="own")
    module = build_network(spec, image_shape=arrays.image_shape, num_classes=len(arrays.classes), seed=seed)
    stream = seeding.generator(seed, "prune")
    look = FirstLook(seeding.generator(seed, "drift"))
    scores = as_criterion(fitted, watch=look)(module, _batches(arrays, batches, batch_size, seed), stream, head=True, density=density)
    mask = global_topk(scores, density, floor=min_per_layer)
    found = dump_tensors(mask, {"density": f"{masks.density(mask):.9g}", "scorer": scorer, "network": network})
    try:
        out.write_bytes(found)
    except OSError as error:
        raise disk_error(out, error, len(found)) from error
    _print(module, mask, out)
    training = features_seen(card)
    if training and (warning := compare(training, look.found).warning):
        Console().print(f"warning: {warning}", highlight=False, markup=False)


def _scorer(address: str, settings: settings_module.Settings) -> tuple[nn.Module, dict[str, Any]]:
    if address_kind("--scorer", address, REGISTRY, LOCAL, S3) == REGISTRY:
        from autosparse.tasks.tracking.tracker import load_scorer_files

        return read_scorer(*load_scorer_files(settings, address), address)
    root, _, folder = address.rstrip("/").rpartition("/")
    return load_scorer(open_store(root or "."), folder)


def _images(data: str, cache: Path) -> ImageArrays:
    known = data in DATASETS
    path = None
    if not known:
        path = data if address_kind("--data", data, LOCAL, S3) == S3 else str(Path(data).expanduser().resolve())
    return load_images(name=data if known else "parquet", path=path, download=False, train_limit=None, test_limit=None, cache=cache)


def _batches(arrays: ImageArrays, count: int, size: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    mean, std = channel_statistics(torch.from_numpy(arrays.train_images))
    order = torch.randperm(len(arrays.train_labels), generator=seeding.generator(seed, "scoring")).numpy()
    return [
        (
            normalise(torch.from_numpy(arrays.train_images[rows]), mean, std, channels_last=True),
            torch.from_numpy(arrays.train_labels[rows]),
        )
        for rows in (order[start : start + size] for start in range(0, min(count * size, len(order)), size))
    ]


def _print(module: nn.Module, mask: dict[str, Tensor], out: Path) -> None:
    table = Table("layer", "shape", "kept", "density")
    for name, keep in mask.items():
        table.add_row(name, "x".join(map(str, keep.shape)), f"{int(keep.sum()):,}", f"{float(keep.float().mean()):.4g}")
    console = Console()
    console.print(table)
    console.print(
        f"kept {masks.kept(mask):,} of {masks.total(mask):,} weights (density {masks.density(mask):.6g}) -> {out}", highlight=False
    )
    if empty := masks.collapsed_layers(mask):
        console.print(f"warning: no weight left in {', '.join(empty)}; --min-per-layer keeps some")
