"""Work with a storage in a process of its own, to be killed, limited or raced: `python -m tests.faults.storage_process WHAT ...`."""

import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np

from autosparse.models.errors import AutosparseError
from autosparse.storage.dataset_manifest import MANIFEST, Manifest
from autosparse.storage.feature_table import Part, commit_dataset, publish, write_shard
from autosparse.storage.open_store import open_store
from autosparse.storage.store import Store

LAYERS, NUMEL = 4, 50_000


def upload(root: str, local: str, key: str) -> None:
    """A large file into the store."""
    open_store(root).upload(Path(local), key)


def commit(root: str, staging: str, seed: str) -> None:
    """Stage a part and commit it; its content depends on the seed."""
    say(commit_dataset(open_store(root), "features", [shard(Path(staging, "x.parquet"), int(seed))], {"seed": int(seed)}).digest)


def race(root: str, what: str, mine: str, races: str) -> None:
    """Take a place that another process wants for other content, so many times; each time waits for a line and says how it went."""
    store = open_store(root)
    store.exists("x")  # connected
    for number in range(int(races)):
        say("ready")
        sys.stdin.readline()
        try:
            take(store, what, number, int(mine))
            say("won")
        except AutosparseError as error:
            say(f"{type(error).__name__}: {error}")


def take(store: Store, what: str, number: int, mine: int) -> None:
    """The name of a run, or the manifest of a data set."""
    if what == "name":
        from autosparse.flows.recipes import smoke  # torch takes seconds to import
        from autosparse.models.specs.fields import override
        from autosparse.storage.paths import RunPaths
        from autosparse.tasks.checks.preflight import claim_name, versions

        claim_name(store, RunPaths(f"run-{number}"), override(smoke(), {"irp.rounds": mine}), {"versions": versions()})
    else:
        publish(store, f"features/{number}/{MANIFEST}", Manifest(schema={}, metadata={"seed": mine}, parts=()))


def fill(root: str, staging: str, size: str) -> None:
    """Write everything that we write to a disk that gives no file more than `size` bytes (0: as many as it has); print the errors."""
    from autosparse.storage.checkpoints import save_training_state

    if int(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), resource.RLIM_INFINITY))
    store, folder, large = open_store(root), Path(staging), np.random.default_rng(0).bytes(2**21)
    state: dict[str, Any] = {"state": {}, "param_groups": []}
    writes = {
        "write": lambda: store.write("a/b.bin", large),
        "create": lambda: store.create("a/c.bin", large),
        "shard": lambda: shard(folder / "x.parquet", 0),
        "checkpoint": lambda: save_training_state(folder, {}, state, {"history": "x" * 2**21}),
    }
    for name, write in writes.items():
        try:
            write()
            say(f"{name}: written")
        except AutosparseError as error:
            say(f"{name}: {type(error).__name__}: {error}")


def shard(path: Path, seed: int) -> Part:
    """A part of random weights, batch by batch."""
    generator = np.random.default_rng(seed)
    layers = [{"name": f"layer{number}", "numel": NUMEL} for number in range(LAYERS)]
    with write_shard(path, {"seed": seed, "layers": layers}) as writer:
        for number in range(LAYERS):
            weights = generator.standard_normal(NUMEL, dtype=np.float32)
            writer.add(number, weights, -weights, np.full(NUMEL, 3, np.uint8), np.full(NUMEL, 31, np.uint8))
    return writer.part


def say(line: str) -> None:
    """A line for the test, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    {"upload": upload, "commit": commit, "race": race, "fill": fill}[name](*arguments)
