"""A run made by hand in a local store: every number on it is chosen so that the page can be checked on paper."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from autosparse.flows.recipes import smoke
from autosparse.models.specs.experiment import ExperimentSpec, plain_spec
from autosparse.models.specs.fields import fingerprint
from autosparse.storage import paths
from autosparse.storage.feature_table import commit_dataset, write_shard
from autosparse.storage.mask_files import dump_mask
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Store

NAME, TARGET = "made", "lenet300-100"
MADE_BY = {"autosparse": "0.1.0", "commit": "abc123", "torch": "2.9", "python": "3.11", "machine": "Linux x86_64"}
LAYERS = ("1.weight", "3.weight", "5.weight")
# method -> density -> accuracy per seed 10, 11; None = failed
ACCURACY: dict[str, dict[float, tuple[float | None, ...]]] = {
    "dense": {1.0: (0.90, 0.92)},
    "ticket": {0.1: (0.80, 0.82)},
    "snip": {0.1: (0.70, 0.72), 0.02: (0.60, 0.60)},
    "magnitude": {0.1: (0.60, 0.60), 0.02: (0.40, None)},
    "scorer": {0.1: (0.76, 0.78), 0.02: (0.50, 0.50)},
    "scorer+shuffle": {0.1: (0.75, 0.76), 0.02: (0.49, 0.50)},
    "scorer+reinit": {0.1: (0.77, 0.77)},
    "snip+invert": {0.1: (None, None)},
}
SCORING = {"snip": 2.0, "magnitude": 1.0, "scorer": 20.0}


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """The functions below: pytest imports this file, tests cannot."""
    functions: dict[str, Callable[..., Any]] = {"run": make_run, "begin": begin, "spec": run_spec, "report": report, "features": features}
    return SimpleNamespace(**functions, name=NAME, target=TARGET)


def run_spec(**data: Any) -> ExperimentSpec:
    """Two sources of two rounds; snip, magnitude and the scorer at two densities and two seeds."""
    base = smoke()
    fanout = replace(base.fanout, methods=("snip", "magnitude", "scorer"), densities=(0.1, 0.02), seeds=(10, 11), ticket=True)
    return replace(base, data=replace(base.data, **data), irp=replace(base.irp, seeds=(0, 1)), fanout=fanout)


def make_run(folder: Path, spec: ExperimentSpec | None = None, **changes: Any) -> Store:
    """The whole run in a store at `folder`; `changes` go into every arm report."""
    spec = spec or run_spec()
    store = begin(folder, spec)
    run = RunPaths(NAME)
    report(store, run.data("data"), digest="d" * 32, train=512, test=128, shape=[1, 8, 8], classes=list("0123456789"), seconds=1.0)
    for seed in spec.irp.seeds:
        for index in range(spec.irp.rounds):
            density, step = 0.1 ** (index / 2), run.round(TARGET, seed, index)
            report(store, step, source=TARGET, seed=seed, round=index, density=density, accuracy=0.9, seconds=60.0)
    features(store, run)
    scorer = {"spearman_pooled": 0.5, "spearman_within_layer": 0.4}
    report(store, run.scorer, metrics={"layers": scorer}, kind="mlp", trained_on={}, parameters=9, seconds=50.0)
    for method, cells in ACCURACY.items():
        folder_name = method.replace("+", "-")
        for number, seed in enumerate(spec.irp.seeds if method == "ticket" else spec.fanout.seeds):
            if method not in ("dense", "ticket"):
                scores(store, run.scores(TARGET, seed, folder_name), method, seed, SCORING.get(method, 3.0))
            for density, values in cells.items():
                arm = {"target": TARGET, "dataset": spec.data.title, "method": method, "density": density, "seed": seed}
                ended = {"status": "ok"} if values[number] is not None else {"status": "diverged", "reason": "loss: nan at step 3"}
                arm |= {"accuracy": values[number], "kept_density": density, "seconds": 40.0, **ended, **changes}
                report(store, run.arm(TARGET, seed, folder_name, density), **arm)
    return store


def begin(folder: Path, spec: ExperimentSpec) -> Store:
    """A run of which nothing but the spec is there."""
    store, run = open_store(str(folder)), RunPaths(NAME)
    store.write_json(run.spec, {"spec": plain_spec(spec), "fingerprint": fingerprint(spec), "name": NAME})
    store.write_json(run.run, {"name": NAME, "started": "2030-01-02T03:04:05Z", "mlflow_url": "http://127.0.0.1:5000/#/runs/1"})
    return store


def report(store: Store, step: str, **content: Any) -> None:
    """What `autosparse.storage.reports.save` would write."""
    store.write_json(paths.report(step), {**content, "made_by": MADE_BY})


def mask_of(method: str) -> dict[str, torch.Tensor]:
    """Four of 16 weights per layer: snip keeps 0..3, magnitude 1..4, the scorer 3..6, everything else 8..11."""
    start = {"snip": 0, "magnitude": 1, "scorer": 3}.get(method, 8)
    keep = torch.zeros(16, dtype=torch.bool)
    keep[start : start + 4] = True
    return {layer: keep.clone().reshape(4, 4) for layer in LAYERS}


def scores(store: Store, step: str, method: str, seed: int, seconds: float) -> None:
    """A score report with its masks. The last layer is empty at density .02, the first one full at .1."""
    cuts = {}
    for density, layers in ((0.1, (1.0, 0.1, 0.5)), (0.02, (0.02, 0.02, 0.0))):
        key = f"{step}/mask-{density:g}.safetensors"
        store.write(key, dump_mask(mask_of(method)))
        cuts[f"{density:g}"] = {"mask": key, "density": density, "collapsed": [], "layer_densities": dict(zip(LAYERS, layers, strict=True))}
    report(store, step, method=method, seed=seed, target=TARGET, cuts=cuts, weights=48, seconds=seconds)


def features(store: Store, run: RunPaths, copies: int = 6) -> None:
    """Two layers; `copies` times the same three weights in each, so that three cells of the survival map are filled."""
    layers = [
        {"name": name, "numel": 3 * copies, "weight_std": std, "gradient_rms": rms} for name, std, rms in (("a", 2.0, 0.5), ("b", 1.0, 1.0))
    ]
    staging = Path(store.root) / ".staging"
    staging.mkdir(exist_ok=True)
    with write_shard(staging / "part.parquet", {"source": TARGET, "seed": 0, "rounds": 2, "layers": layers}) as writer:
        for number, (std, rms) in enumerate(((2.0, 0.5), (1.0, 1.0))):
            weight = np.array([0.55, -0.55, 9.0] * copies, np.float32) * np.float32(std)
            gradient = np.array([0.52, 0.52, -9.0] * copies, np.float32) * np.float32(rms)
            writer.add(number, weight, gradient, np.array([2, 1, 0] * copies, np.uint8), np.array([0, 9, 31] * copies, np.uint8))
    dataset = commit_dataset(store, run.features, [writer.part], {"rounds": 2, "features_version": 1})
    report(store, run.features, uri="/elsewhere/features", digest=dataset.digest, rows=dataset.rows, seconds=10.0)
