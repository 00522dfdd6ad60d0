"""Whether the disk of a local storage has room for a whole run, asked before it starts."""

from pathlib import Path

from autosparse.models.errors import DataError
from autosparse.models.masks.mask import prunable
from autosparse.models.networks.build import build_network
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.run_specs import NetworkSpec
from autosparse.storage.disk import free_bytes
from autosparse.storage.feature_shards import ROW_BYTES
from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Store

FLOAT_BYTES = 4
IMAGE, CLASSES = (3, 32, 32), 10  # sizes near enough, without reading any images


def check_room(store: Store, paths: RunPaths, spec: ExperimentSpec) -> None:
    """Raise DataError, with the bytes needed and free, when the disk clearly cannot hold the run; what it has stored already counts.

    Of a storage elsewhere nothing is known.
    """
    if not store.local_path(paths.spec):
        return
    there = sum((Path(store.root) / key).stat().st_size for key in store.list(paths.root))
    needed, free = bytes_of(spec) - there, free_bytes(store.root)
    if needed > free:
        raise DataError(f"storage: {store.root} has {free:,} bytes free; allowed: about {needed:,} for the rest of this run")


def bytes_of(spec: ExperimentSpec) -> int:
    """The least that a run stores: weights of all rounds and arms, features, scores. Masks, reports and checkpoints are not counted."""
    irp, fanout, total = spec.irp, spec.fanout, 0
    for network in irp.networks:
        rows, state = _sizes(network)
        total += len(irp.seeds) * (irp.rounds * state + rows * ROW_BYTES)
    for target in fanout.targets:
        rows, state = _sizes(target.network)
        methods = len(target.methods or fanout.methods)
        total += len(fanout.seeds) * methods * (len(fanout.densities) * state + rows * FLOAT_BYTES)
    return total


def _sizes(network: NetworkSpec) -> tuple[int, int]:
    """Prunable weights, and bytes of all parameters."""
    built = build_network(network, image_shape=IMAGE, num_classes=CLASSES, seed=0)
    rows = sum(weight.numel() for weight in prunable(built, head=network.prune_head).values())
    return rows, FLOAT_BYTES * sum(parameter.numel() for parameter in built.parameters())
