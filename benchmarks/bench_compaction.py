"""What compaction brings: parameters, multiply-adds, megabytes and latency of networks pruned at initialization, beside the dense ones.

    python -m benchmarks.bench_compaction --networks resnet20 mobilenet_v2 --methods synflow --densities .05 .02

Weights, images and labels are random: what leaves hangs on the mask alone. A latency is the median of `--repeat` forward passes in
eval mode, dense and small in turns; in brackets how many times less it is than dense, of the same minute. Times of a busy machine
are no good for anything else.
"""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autosparse.library.compaction import compact, size
from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.errors import CollapseError
from autosparse.models.networks.registry import find_builder
from autosparse.models.networks.torchvision_guard import import_torchvision
from autosparse.models.seeding import generator, scoped
from autosparse.tasks.results.markdown import markdown
from benchmarks.reporting import options, save, where

PIXELS = {"resnet20": 32, "resnet50": 224, "vgg16": 32, "mobilenet_v2": 224, "vit_tiny": 224}
ZOO = {"mobilenet_v2": "torchvision:mobilenet_v2"}
DENSE = "dense"
CLASSES = {32: 10, 224: 1000}
METHODS, DENSITIES, THREADS, BATCHES = ("synflow", "snip"), (0.1, 0.05, 0.02), (1, 2), (1, 32)
UNITS = {"parameters": 1e6, "multiply_adds": 1e6, "megabytes": 1}
SCORED = 8  # images that a criterion sees


def main() -> None:
    """Prune, compact, time and print."""
    parser = options(__doc__, repeat=7)
    parser.add_argument("--networks", nargs="+", choices=PIXELS, default=list(PIXELS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--densities", nargs="+", type=float, default=list(DENSITIES))
    parser.add_argument("--threads", nargs="+", type=int, default=list(THREADS))
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    args = parser.parse_args()
    rows = []
    for name in args.networks:
        rows += measure(name, args.methods, args.densities, args.threads, args.batches, args.repeat)
    print(f"{where('compaction')}\n\n{table(rows)}", end="")
    save("compaction", rows, args)


def measure(
    name: str, methods: Sequence[str], densities: Sequence[float], threads: Sequence[int], batches: Sequence[int], repeat: int
) -> list[dict[str, Any]]:
    """A row for the dense network and one for each method and density."""
    dense, image = build(name), torch.randn(SCORED, 3, PIXELS[name], PIXELS[name], generator=generator(0, "images"))
    labels = torch.arange(SCORED)
    facts = vars(size(dense, image[:1]))
    rows = [{"network": name, "method": DENSE, "density": 1.0, **facts}]
    for method in methods:
        criterion = CRITERIA[method]
        scores = criterion.score(dense, [(image, labels)], generator(0, method), density=min(densities))
        for density in densities:
            row = {"network": name, "method": method, "density": density}
            try:
                small = compact(dense, image[:1], criterion.allocate(scores, density))
            except CollapseError:
                rows.append(row)
                continue
            row |= vars(size(small, image[:1]))
            times = {(count, batch): in_turns(dense, small, image, count, batch, repeat) for count in threads for batch in batches}
            row |= {f"ms, {count} threads, batch {batch}": own for (count, batch), (_, own) in times.items()}
            row |= {f"x, {count} threads, batch {batch}": whole / own for (count, batch), (whole, own) in times.items()}
            rows[0] |= {f"ms, {count} threads, batch {batch}": whole for (count, batch), (whole, _) in times.items()}
            rows.append(row)
    return rows


def build(name: str) -> nn.Module:
    """A network with random weights for square images of `PIXELS` pixels."""
    pixels = PIXELS[name]
    with scoped(0, name):
        if name == "vit_tiny":  # DeiT-Ti
            return import_torchvision().models.VisionTransformer(pixels, 16, 12, 3, 192, 768)
        return find_builder(ZOO.get(name, name))(image_shape=(3, pixels, pixels), num_classes=CLASSES[pixels])


def in_turns(dense: nn.Module, small: nn.Module, image: Tensor, threads: int, batch: int, repeat: int) -> tuple[float, float]:
    """Median milliseconds of a forward pass of both, in turns, after one that is not timed."""
    torch.set_num_threads(threads)
    images = image[:1].expand(batch, -1, -1, -1).contiguous()
    times: tuple[list[float], list[float]] = ([], [])
    with torch.inference_mode():
        for turn in range(repeat + 1):
            for network, found in zip((dense.eval(), small.eval()), times, strict=True):
                start = time.perf_counter()
                network(images)
                if turn:
                    found.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[0]), statistics.median(times[1])


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: what is left, how many times less than dense in brackets, milliseconds and how many times faster."""
    dense = {row["network"]: row for row in rows if row["method"] == DENSE}
    timed = [key.removeprefix("ms, ") for key in rows[0] if key.startswith("ms, ")]
    lines = []
    for row in rows:
        sizes = [
            _times(row, dense[row["network"]], key, unit) for key, unit in (("parameters", 1e6), ("multiply_adds", 1e6), ("megabytes", 1))
        ]
        speeds = [f"{row[f'ms, {each}']:.2f}" + (f" ({row[f'x, {each}']:.2f})" if f"x, {each}" in row else "") for each in timed]
        lines.append([row["network"], row["method"], f"{row['density']:g}", *sizes, *speeds])
    return markdown(("network", "method", "density", "M parameters", "M multiply-adds", "MB", *(f"ms, {each}" for each in timed)), lines)


def _times(row: dict[str, Any], dense: dict[str, Any], key: str, unit: float) -> str:
    shown = f"{row[key] / unit:.3g}"
    return shown if row is dense else f"{shown} ({dense[key] / row[key]:.2f})"


if __name__ == "__main__":
    main()
