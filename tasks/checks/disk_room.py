"""Whether the disk of a local storage has room for a whole run, asked before it starts."""

import functools
from pathlib import Path

from autosparse.models.arms.plan import sources
from autosparse.models.errors import DataError
from autosparse.models.masks.mask import prunable
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.run_specs import DataSpec, NetworkSpec
from autosparse.storage.disk import free_bytes
from autosparse.storage.feature_shards import ROW_BYTES
from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Store
from autosparse.tasks.checks.networks import build, seen_of
from autosparse.tasks.checks.preflight import run_name
from autosparse.tasks.planning.steps import ARM, FEATURES, ROUND, SCORING, PlannedStep, steps_of

FLOAT_BYTES = 4


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


@functools.lru_cache(maxsize=1)  # asked twice by `autosparse run`, as the whole of these checks
def bytes_of(spec: ExperimentSpec) -> int:
    """About what a run stores: weights of all rounds and arms, features, scores. Masks, reports and checkpoints are not counted."""
    return sum(stored_bytes(step, spec) for step in steps_of(spec, RunPaths(run_name(spec))))


def stored_bytes(step: PlannedStep, spec: ExperimentSpec) -> int:
    """What one step leaves in storage."""
    if step.kind == FEATURES:
        return sum(sizes_of(network, spec.data)[0] * ROW_BYTES for network, _ in sources(spec))
    if step.kind not in (ROUND, ARM, SCORING) or step.network is None or step.data is None:
        return 0
    rows, state = sizes_of(step.network, step.data)
    return rows * FLOAT_BYTES if step.kind == SCORING else state


@functools.lru_cache(maxsize=64)
def sizes_of(network: NetworkSpec, data: DataSpec) -> tuple[int, int]:
    """Prunable weights, and bytes of all parameters."""
    built = build(network, seen_of(data))
    rows = sum(weight.numel() for weight in prunable(built, head=network.prune_head).values())
    return rows, FLOAT_BYTES * sum(parameter.numel() for parameter in built.parameters())
