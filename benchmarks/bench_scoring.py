"""Weights scored per second, features included, and the memory it takes.

    python benchmarks/bench_scoring.py [--json FILE]

Synthetic layers of 2.36 million weights each, as in the last stage of a ResNet-18. Memory is the peak of the process beyond what
it held with weights, gradients and the result allocated. The demand on the mlp scorer: 3 million weights/s on 2 threads.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from benchmarks.reporting import report
from models.features import layer_facts
from models.scorer_criterion import score_weights
from models.scorers.registry import SCORERS, build_scorer
from models.seeding import generator

LAYER = (512, 512, 3, 3)
SLOW = {"resnet18": 1024}  # weights that are enough to time it


def main() -> None:
    """Time every kind of scorer and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    stream = generator(0, "bench")
    weights = torch.randn(args.layers, *LAYER, generator=stream) * 0.02
    gradients = torch.randn(args.layers, *LAYER, generator=stream) * 1e-3
    report("scoring", [measure(kind, weights, gradients, args.repeats) for kind in ("table", "mlp", "resnet18")], args)


def measure(kind: str, weights: torch.Tensor, gradients: torch.Tensor, repeats: int) -> dict[str, float | str]:
    """Median over `repeats` passes through all layers (of `SLOW` weights for a slow kind)."""
    if kind in SLOW:
        weights, gradients = (values.flatten()[: SLOW[kind]].view(1, -1, 8) for values in (weights, gradients))
    scorer = build_scorer(kind, hidden=(32, 32), seed=0).eval()
    names = [str(index) for index in range(len(weights))]
    facts = layer_facts(dict(zip(names, weights, strict=True)), dict(zip(names, gradients, strict=True)))
    result = torch.zeros_like(weights)
    before, seconds = resident_mib(forget_peak=True), []
    for _ in range(repeats):
        start = time.perf_counter()
        for index, layer in enumerate(facts):
            result[index] = score_weights(scorer, weights[index], gradients[index], layer)
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    return {
        "scorer": kind,
        "weights": weights.numel(),
        "chunk": SCORERS[kind].module.chunk_rows,
        "seconds": round(median, 3),
        "M weights/s": round(weights.numel() / median / 1e6, 4),
        "extra MiB": round(resident_mib() - before),
    }


def resident_mib(*, forget_peak: bool = False) -> float:
    """Highest resident memory of this process since its peak was last forgotten (Linux only)."""
    if forget_peak:
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
