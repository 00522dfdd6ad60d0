"""Where sparse weights pay: latency of pruned networks in the runtimes that there are, and what their files weigh.

    python -m benchmarks.bench_runtimes --json FILE
    PYTHONPATH=FOLDER python -m benchmarks.bench_runtimes   # with openvino, mnn and zstandard from `pip install --target FOLDER`

Weights and images are random, batch norms have seen one batch. One thread, float32. All candidates of a network, mask and batch take
turns in one process, each turn in another order; a figure is the median over the turns of the time of the same runtime's dense network
in that turn, divided by the candidate's: above 1 is faster. A candidate that needs more than `SLOW` times torch's dense pass, and more
than 80 ms, is timed once. Every candidate must give torch's outputs for the masked network to 1e-4 of the largest, MNN's to 1e-3.
"""

import statistics
import time
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from math import exp, log
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autosparse.library.compaction import compact_with_mask, difference, line
from autosparse.library.pruning import prune
from autosparse.models.errors import CollapseError
from autosparse.models.masks.mask import Mask, apply_
from autosparse.models.networks.registry import find_builder
from autosparse.models.networks.torchvision_guard import import_torchvision
from autosparse.models.seeding import generator, scoped
from autosparse.tasks.results.markdown import markdown
from benchmarks.reporting import options, save, where
from benchmarks.runtimes import CANDIDATES, COMPACTED, DENSE, MASKED, Case, Run
from benchmarks.stored_bytes import bytes_by_way

NETWORKS = {"lenet300-100": (1, 28, 28), "resnet20": (3, 32, 32), "vgg16": (3, 32, 32), "vit_tiny": (3, 32, 32)}
DENSITIES, CONTROL = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01), (0.1,)
BATCHES = (1, 32)
SLOW, LEAST = 4, 3  # times torch dense; turns
SHORTEST, LONG = 0.001, 0.02  # seconds: a timing takes more, of so many passes; a pass that needs no other before it to warm caches
FIRST = "torch dense"


@dataclass(frozen=True)
class Effort:
    """How many turns at most, and after how many seconds there are no more."""

    repeat: int = 31
    seconds: float = 1.5


def main(given: Sequence[str] | None = None) -> None:
    """Prune, run, time, weigh and print."""
    args = _parser().parse_args(given)
    if args.quick:
        args.networks, args.densities, args.control, args.repeat, args.seconds = ["lenet300-100"], [0.05], [], 3, 0.0
    torch.set_num_threads(1)
    times, sizes = [], []
    for name in args.networks:
        for method, density, mask in masks(name, args.densities, args.control):
            found = measure(name, mask, args.batches, Effort(args.repeat, args.seconds))
            for rows, into in zip(found, (times, sizes), strict=True):
                into += [{"network": name, "method": method, "density": density, **row} for row in rows]
            save("runtimes", times, args, {"bytes": sizes, "versions": versions()})  # what there is, if it is stopped
    print(f"{where('runtimes')}\n\n{report(times, sizes)}", end="")


def _parser() -> ArgumentParser:
    parser = options(__doc__, repeat=Effort.repeat)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--densities", nargs="+", type=float, default=list(DENSITIES), help="of SynFlow's masks")
    parser.add_argument("--control", nargs="*", type=float, default=list(CONTROL), help="of random masks with ERK's layer densities")
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--seconds", type=float, default=Effort.seconds, help="of turns beyond the least, by network, mask and batch")
    parser.add_argument("--quick", action="store_true", help="the smallest network at one density, in seconds")
    return parser


def build(name: str) -> nn.Module:
    """A network with random weights for images of `NETWORKS`, ten classes."""
    with scoped(0, name):
        if name == "vit_tiny":
            import_torchvision()  # timm imports it
            return import_module("timm").create_model("vit_tiny_patch16_224", img_size=32, patch_size=4, num_classes=10)
        return find_builder(name)(image_shape=NETWORKS[name], num_classes=10)


def masks(name: str, densities: Sequence[float], control: Sequence[float]) -> list[tuple[str, float, Mask]]:
    """Method, density and mask: SynFlow at `densities`, random weights with ERK's layer densities at `control`."""
    network, example = build(name), torch.zeros(1, *NETWORKS[name])
    plan = [("synflow", list(densities)), ("erk", list(control))]
    return [
        (method, density, dict(mask))
        for method, several in plan
        if several
        for density, mask in zip(several, prune(network, method=method, density=several, example=example), strict=True)
    ]


def measure(name: str, mask: Mask, batches: Sequence[int], effort: Effort) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of times, one for each batch and candidate, and one row of bytes; none for a mask without a path to an output."""
    images = torch.randn(max(batches), *NETWORKS[name], generator=generator(0, "images"))
    dense, masked = calibrated(build(name), images), build(name)
    apply_(masked, mask)
    calibrated(masked, images)
    try:
        small, _ = compact_with_mask(masked, images[:1], mask)
    except CollapseError as error:
        return [{"candidate": "", "error": line(error)}], []
    networks, rows = {DENSE: dense, MASKED: masked, COMPACTED: small.eval()}, []
    linear = 2 * sum(keep.dim() == 2 for keep in mask.values()) > len(mask)  # else layer by layer takes seconds a batch: one image alone
    with TemporaryDirectory(prefix="runtimes-") as folder:
        for batch in batches:
            case = Case(networks, tuple(mask), images[:batch].contiguous(), Path(folder))
            rows += [{"batch": batch, **row} for row in compare(case, effort, layers=linear or batch == 1)]
        sizes = bytes_by_way(masked, small) | _onnx_bytes(Path(folder))
    return rows, [sizes]


def calibrated(network: nn.Module, images: Tensor) -> nn.Module:
    """The same network in eval mode, its batch norms with the statistics of `images`: without, deep networks give next to nothing."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # an average of all it has seen
    with torch.no_grad():
        network.train()(images)
    return network.eval()


def compare(case: Case, effort: Effort, *, layers: bool = True) -> list[dict[str, Any]]:
    """A row for each candidate that is there: its median milliseconds and how many times faster than its runtime's dense network.

    Raises ValueError for a candidate that is another function; what cannot be built has an `error` in its row.
    """
    runs, rows = {}, []
    for name, candidate in CANDIDATES.items():
        if candidate.there and (layers or not candidate.layers):
            try:
                runs[name] = candidate.build(case)
            except Exception as error:  # whatever a runtime says of a network that it cannot run
                rows.append({"candidate": name, "error": line(error)})
    wanted = {name: case.networks[DENSE if CANDIDATES[name].variant == DENSE else MASKED] for name in runs}
    for name, run in runs.items():
        check(name, run(), wanted[name], case.images)  # the first pass, which warms up
    times = in_turns(runs, effort)
    return [*(row(name, times) for name in runs), *rows]


def check(name: str, found: np.ndarray, network: nn.Module, images: Tensor) -> None:
    """Raises ValueError where the outputs are not those of the network to the tolerance of the candidate."""
    with torch.inference_mode():
        wanted = network(images)
    if problem := difference([torch.from_numpy(found.copy())], [wanted], CANDIDATES[name].tolerance):
        raise ValueError(f"{name} is another function: {problem}")


def in_turns(runs: Mapping[str, Run], effort: Effort) -> dict[str, list[float]]:
    """Milliseconds of a pass by candidate and turn; a slow candidate has a single turn."""
    warm = {name: _timed(run, 1) for name, run in runs.items()}
    passes = {name: max(1, min(50, round(SHORTEST / once))) for name, once in warm.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    start, order = time.perf_counter(), Random(0)
    for turn in range(effort.repeat):
        if turn >= min(LEAST, effort.repeat) and time.perf_counter() - start > effort.seconds:
            break
        for name in order.sample(list(runs), len(runs)):  # each turn in another order: who comes second finds warm caches
            if turn == 0 or warm[name] <= max(SLOW * warm[FIRST], SLOW * LONG):
                if warm[name] < LONG:
                    runs[name]()
                times[name].append(1000 * _timed(runs[name], passes[name]))
    return times


def _timed(run: Run, passes: int) -> float:
    start = time.perf_counter()
    for _ in range(passes):
        run()
    return (time.perf_counter() - start) / passes


def row(name: str, times: Mapping[str, list[float]]) -> dict[str, Any]:
    """Median milliseconds, and the ratio to the dense network of the same runtime with the quartiles over the turns."""
    own = next(other for other in times if CANDIDATES[other].runtime == CANDIDATES[name].runtime and CANDIDATES[other].variant == DENSE)
    ratios = [dense / one for dense, one in zip(times[own], times[name], strict=False)]
    low, _, high = statistics.quantiles(ratios, method="inclusive") if len(ratios) > 1 else ratios * 3
    found = {"ms": statistics.median(times[name]), "faster": statistics.median(ratios), "low": low, "high": high, "n": len(ratios)}
    return {
        "candidate": name,
        **found,
        "faster_than_torch": statistics.median(a / b for a, b in zip(times[FIRST], times[name], strict=False)),
    }


def _onnx_bytes(folder: Path) -> dict[str, int]:
    files = {"ONNX, fp32": f"{MASKED}-1.onnx", "ONNX sparse, fp32": f"{MASKED}-1-sparse.onnx"}
    return {key: (folder / file).stat().st_size for key, file in files.items() if (folder / file).exists()}


def versions() -> dict[str, str]:
    """Versions of the runtimes that took part."""
    return {name: version(name) for name in sorted({each.needs for each in CANDIDATES.values() if each.there})}


def report(times: list[dict[str, Any]], sizes: list[dict[str, Any]]) -> str:
    """Markdown: how many times faster than the same runtime's dense network, by network, method, batch and density; break-even; bytes."""
    parts = []
    for key in dict.fromkeys((row["network"], row["method"], row["batch"]) for row in times if "ms" in row):
        own = [row for row in times if (row["network"], row["method"], row.get("batch")) == key]
        parts.append(f"### {key[0]}, {key[1]}, batch {key[2]}\n\n{_table(own)}")
    for row in times:
        if "error" in row:
            parts.append(f"{row['network']} {row['method']} {row['density']:g} {row['candidate']}: {row['error']}\n")
    return "\n".join([*parts, f"### Bytes\n\n{_bytes_table(sizes)}"])


def _table(rows: list[dict[str, Any]]) -> str:
    densities = list(dict.fromkeys(row["density"] for row in rows))
    lines = []
    for name in dict.fromkeys(row["candidate"] for row in rows if "ms" in row):
        own = {row["density"]: row for row in rows if row["candidate"] == name and "ms" in row}
        cells = [shown(own[density]) if density in own else "" for density in densities]
        even = (
            ""
            if CANDIDATES[name].variant == DENSE
            else break_even({at: row["faster"] if row["low"] > 1 else min(row["faster"], 1) for at, row in own.items()})
        )
        lines.append([name, f"{statistics.median(row['ms'] for row in own.values()):.3g}", *cells, even])
    return markdown(("candidate", "ms, median of all", *(f"{density:g}" for density in densities), "break-even"), lines)


def shown(row: Mapping[str, Any]) -> str:
    """A ratio; `~` where its quartiles hold 1, so that nothing is said, `once` where it was timed once."""
    return f"{row['faster']:.2f}{' once' if row['n'] == 1 else ' ~' if row['low'] <= 1 <= row['high'] else ''}"


def break_even(faster: Mapping[float, float]) -> str:
    """The largest density below which the ratio stays above 1, between two measured ones by their logarithms."""
    falling = sorted(faster, reverse=True)
    if not faster or faster[falling[-1]] <= 1:
        return "none"
    last = next((at for at in reversed(range(len(falling))) if faster[falling[at]] <= 1), None)
    if last is None:
        return f"> {falling[0]:g}"
    dense, sparse = falling[last], falling[last + 1]
    share = (1 - faster[dense]) / (faster[sparse] - faster[dense])
    return f"{exp(log(dense) + share * (log(sparse) - log(dense))):.2g}"


def _bytes_table(rows: list[dict[str, Any]]) -> str:
    ways = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in ("network", "method", "density")]
    lines = [
        [row["network"], row["method"], f"{row['density']:g}", *(f"{row[way] / 1000:,.1f}" if way in row else "" for way in ways)]
        for row in rows
    ]
    return markdown(("network", "method", "density", *(f"{way}, kB" for way in ways)), lines)


if __name__ == "__main__":
    main()
