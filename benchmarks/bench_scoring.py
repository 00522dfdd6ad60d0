"""Weights scored per second by every kind of scorer, features included, and the memory a pass takes.

Run with `python -m benchmarks.bench_scoring`. Synthetic layers of 2.36 million weights each, as in the last stage of a ResNet-18.
Memory (Linux only) is the peak beyond what the process held before the first pass, that is beside weights, gradients and the result.
On a machine that is busy otherwise, two threads wait for each other and the speed falls tenfold and more: look at `least`.
"""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autosparse.models.features import layer_facts
from autosparse.models.scorers.criterion import score_weights
from autosparse.models.scorers.registry import build_scorer
from autosparse.models.seeding import generator
from benchmarks.reporting import figure, options, report

LAYER = (512, 512, 3, 3)
FEW = 1024  # weights that are enough to time the slow scorer of the paper
TARGETS = {"mlp": ">= 3"}


def main() -> None:
    """Time every kind of scorer and report."""
    parser = options("scoring: weights per second and peak memory", repeat=5)
    parser.add_argument("--layers", type=int, default=8, help="layers of 2.36 million weights (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    stream = generator(0, "bench")
    weights = torch.randn(args.layers, *LAYER, generator=stream) * 0.02
    gradients = torch.randn(args.layers, *LAYER, generator=stream) * 1e-3
    rows = [row for kind in ("mlp", "table") for row in measure(kind, weights, gradients, args.repeat)]
    few, of_few = (values.flatten()[:FEW].view(1, 16, -1) for values in (weights, gradients))
    report("scoring", rows + measure("resnet18", few, of_few, args.repeat), args)


def measure(kind: str, weights: Tensor, gradients: Tensor, repeat: int) -> list[dict[str, Any]]:
    """Speed and memory of `repeat` passes through all layers (the first dimension), after a pass that is not timed."""
    scorer = build_scorer(kind, hidden=(32, 32), seed=0).eval()
    names = [str(index) for index in range(len(weights))]
    facts = layer_facts(dict(zip(names, weights, strict=True)), dict(zip(names, gradients, strict=True)))
    result = torch.zeros_like(weights)
    speeds = []
    before = resident_mib(forget_peak=True)
    for _ in range(repeat + 1):
        start = time.perf_counter()
        for index, layer in enumerate(facts):
            result[index] = score_weights(scorer, weights[index], gradients[index], layer)
        speeds.append(weights.numel() / (time.perf_counter() - start) / 1e6)
    memory = resident_mib() - before
    return [figure(f"{kind}, speed", "M weights/s", speeds[1:], TARGETS.get(kind, "")), figure(f"{kind}, memory", "MiB", [memory])]


def resident_mib(*, forget_peak: bool = False) -> float:
    """Highest resident memory of this process since its peak was last forgotten."""
    if forget_peak:
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
