"""Write, commit, check and read the feature data set: `python -m benchmarks.bench_feature_table`.

The layers are those of a ResNet-18 (11.2 M weights), repeated and cut until there are as many rows as asked for. Weights and
gradients are normal, survival is geometric. `--bounded` passes 100 M rows through once and asks for the peak of memory.
"""

import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from autosparse.models.scorers.labels import GROWTH_LEVELS
from autosparse.storage.feature_table import FeatureDataset, Part, commit_dataset, open_dataset, write_shard
from autosparse.storage.open_store import open_store
from benchmarks.reporting import figure, options, peak_mib, report

STAGES = (*[36864] * 4, 73728, *[147456] * 3, 8192, 294912, *[589824] * 3, 32768, 1179648, *[2359296] * 3, 131072)
RESNET18 = (1728, *STAGES, 5120)  # stem and classifier for small images
FEATURES = ("weight", "gradient")
SCORED = ("layer", "weight", "gradient", "rounds_survived")
BOUNDED_ROWS, BOUNDED_MIB = 100_000_000, 1536

Columns = dict[str, np.ndarray]


def layer_sizes(rows: int) -> list[int]:
    """Layers that hold `rows` weights in all."""
    sizes: list[int] = []
    while rows > 0:
        sizes.append(min(RESNET18[len(sizes) % len(RESNET18)], rows))
        rows -= sizes[-1]
    return sizes


def facts(number: int, size: int) -> dict[str, Any]:
    """Layer facts of a 3x3 convolution with about `size` weights."""
    width = max(round((size / 9) ** 0.5), 1)
    spread = (2 / (9 * width)) ** 0.5
    shape = {"kind": "conv", "shape": [width, width, 3, 3], "fan_in": 9 * width, "fan_out": 9 * width, "depth": 0.5}
    return {"name": f"layer{number}.weight", "numel": size, "weight_std": spread, "gradient_rms": 1e-3, **shape}


def layer_columns(size: int, spread: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weights, gradients, rounds survived and growth of one layer."""
    weights = generator.standard_normal(size, dtype=np.float32) * np.float32(spread)
    gradients = generator.standard_normal(size, dtype=np.float32) * np.float32(1e-3)
    rounds = generator.geometric(0.35, size).clip(0, 10).astype(np.uint8)
    return weights, gradients, rounds, generator.integers(GROWTH_LEVELS, size=size, dtype=np.uint8)


def write_part(path: Path, rows: int, seed: int = 0) -> tuple[Part, float]:
    """Stage `rows` synthetic rows; the part and the seconds that writing took, without making the numbers up."""
    generator = np.random.default_rng(seed)
    layers = [facts(number, size) for number, size in enumerate(layer_sizes(rows))]
    start, making = time.perf_counter(), 0.0
    with write_shard(path, {"source": "synthetic", "seed": seed, "rounds": 10, "features_version": 1, "layers": layers}) as writer:
        for number, layer in enumerate(layers):
            before = time.perf_counter()
            columns = layer_columns(layer["numel"], layer["weight_std"], generator)
            making += time.perf_counter() - before
            writer.add(number, *columns)
    return writer.part, time.perf_counter() - start - making


def read_all(dataset: FeatureDataset, columns: tuple[str, ...], use: Callable[[Columns], None] = lambda columns: None) -> float:
    """Seconds to read every row, `use` of each batch included."""
    start = time.perf_counter()
    seen = 0
    for number in range(len(dataset.parts)):
        for batch in dataset.batches(number, columns):
            seen += len(batch[columns[0]])
            use(batch)
    assert seen == dataset.rows
    return time.perf_counter() - start


def bounded(folder: Path, rows: int, use: Callable[[Columns], None] = lambda columns: None) -> Iterator[dict[str, Any]]:
    """Write, commit, check and read `rows` rows once; `use` takes each batch of SCORED columns. Yields figures, memory last."""
    part, seconds = write_part(folder / "staged.parquet", rows)
    yield figure("write", "M rows/s", [rows / seconds / 1e6])
    start = time.perf_counter()
    ref = commit_dataset(open_store(str(folder)), "features", [part], {})
    yield figure("commit", "s", [time.perf_counter() - start])
    start = time.perf_counter()
    dataset = open_dataset(ref.uri)
    yield figure("open and check", "s", [time.perf_counter() - start])
    yield figure("read and use", "M rows/s", [rows / read_all(dataset, SCORED, use) / 1e6])
    yield figure("peak memory", "MiB", [peak_mib()], f"<= {BOUNDED_MIB}")


def measure(folder: Path, args: Namespace) -> list[dict[str, Any]]:
    """All figures of `args.rows` rows, each `args.repeat` times; the first pass, which warms up, is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in ("write", "commit", "open", "features", "scored")}
    store = open_store(str(folder))
    size = 0
    for _ in range(args.repeat + 1):
        part, seconds = write_part(folder / "staged.parquet", args.rows)
        taken["write"].append(seconds)
        start = time.perf_counter()
        ref = commit_dataset(store, "features", [part], {})
        taken["commit"].append(seconds + time.perf_counter() - start)
        start = time.perf_counter()
        dataset = open_dataset(ref.uri)
        taken["open"].append(time.perf_counter() - start)
        taken["features"].append(read_all(dataset, FEATURES))
        taken["scored"].append(read_all(dataset, SCORED))
        size = dataset.parts[0].size
    speed = {name: [args.rows / seconds / 1e6 for seconds in values[1:]] for name, values in taken.items()}
    return [
        figure("write", "M rows/s", speed["write"], ">= 15"),
        figure("write and commit", "M rows/s", speed["commit"]),
        figure("check on opening", "M rows/s", speed["open"]),
        figure("read weight, gradient", "M rows/s", speed["features"], ">= 40"),
        figure("read all that a scorer is fitted on", "M rows/s", speed["scored"]),
        figure("size", "bytes/row", [size / args.rows], "<= 9"),
        figure("peak memory", "MiB", [peak_mib()]),
    ]


def main() -> None:
    """Run from the command line."""
    parser = options(__doc__ or "", repeat=5)
    parser.add_argument("--rows", type=int, help="default 11 M, 100 M with --bounded")
    parser.add_argument("--bounded", action="store_true", help="one pass of many rows, for the peak of memory")
    args = parser.parse_args()
    args.rows = args.rows or (BOUNDED_ROWS if args.bounded else 11_000_000)
    with tempfile.TemporaryDirectory() as folder:
        rows = list(bounded(Path(folder), args.rows)) if args.bounded else measure(Path(folder), args)
    report("feature table, bounded memory" if args.bounded else "feature table", rows, args)


if __name__ == "__main__":
    main()
