"""Large networks: `prune` on a ViT by one forward and backward pass on the same images, its memory, and a global cut of a billion scores.

Run with `python -m benchmarks.bench_large`. A ViT-B/16 of 86 million weights at 224 x 224 and a ViT-S/16 of 22 million beside it, both
with random weights; the pass (cross entropy, gradients of all weights) and the methods take turns. Seconds are those of `prune` as a
person calls it, of processor time (other work on a shared machine blurs the clock far more): the dry run, scores and the cut are in
them. Memory (Linux only) is the peak of a process of its own beyond what it held before the call, in multiples of the weights' bytes;
where it is linear in the weights both networks have the same. The scores themselves (float32) are in the peak of the cut, which is exact
where no dropped score is above a kept one and the count is right.
"""

import argparse
import gc
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import autosparse
from autosparse.library.scorer import Scorer
from autosparse.models.masks.allocation import global_topk, keep_count
from autosparse.models.masks.mask import Mask
from autosparse.models.networks.torchvision_guard import import_torchvision
from autosparse.models.scorers.registry import build_scorer
from autosparse.models.seeding import generator, scoped
from benchmarks.bench_scoring import resident_mib
from benchmarks.reporting import arguments, figure, report

METHODS = ("magnitude", "erk", "snip", "scorer")
WIDTHS = {"ViT-S/16": 384, "ViT-B/16": 768}
LAYER = (25_000, 5_000)  # 125 million scores: eight layers are a billion
DENSITY = 0.05


def main() -> None:
    """Print a row per network and method, and the cut."""
    options = arguments(__doc__, _add)
    torch.set_flush_denormal(True)
    torch.set_num_threads(options.threads)
    rows = [row for name, width in WIDTHS.items() for row in network_rows(name, width, options)]
    report("large", [*rows, *cut_rows(options.scores)], options)


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=2, help="turns of the pass and the methods (default %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="images of the one batch (default %(default)s)")
    parser.add_argument("--scores", type=float, default=1e9, help="scores of the global cut (default %(default)s)")


def network_rows(name: str, width: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of each method by those of the pass beside it, and the memory of each."""
    network, batch = vit(width), images(options.batch_size)
    passes: list[float] = []
    ratios: dict[str, list[float]] = {method: [] for method in METHODS}
    for _ in range(options.repeat):
        passes.append(seconds(lambda: one_pass(network, batch)))
        for method, found in ratios.items():
            found.append(seconds(partial(masked, network, batch, method)) / passes[-1])
    rows = [figure(f"{name}, pass", "CPU s", passes), memory_row(name, width, "pass", options)]
    for method, found in ratios.items():
        rows += [figure(f"{name}, {method}", "x pass", found, "<= 10"), memory_row(name, width, method, options)]
    return rows


def memory_row(name: str, width: int, what: str, options: argparse.Namespace) -> dict[str, Any]:
    """The peak of a process that does nothing else."""
    with get_context("spawn").Pool(1) as pool:
        return figure(f"{name}, {what}, memory", "x weights", [pool.apply(memory, (width, what, options.batch_size, options.threads))])


def memory(width: int, what: str, batch_size: int, threads: int) -> float:
    """The peak beyond the network and its images, in multiples of the weights' bytes."""
    torch.set_num_threads(threads)
    network, batch = vit(width), images(batch_size)
    size = sum(param.numel() * param.element_size() for param in network.parameters())
    before = resident_mib(forget_peak=True)
    one_pass(network, batch) if what == "pass" else masked(network, batch, what)
    return (resident_mib() - before) * 2**20 / size


def seconds(call: Callable[[], object]) -> float:
    """Of processor time, of all threads."""
    start = time.process_time()
    call()
    return time.process_time() - start


def masked(network: nn.Module, batch: tuple[Tensor, Tensor], method: str) -> object:
    """The mask by a method's name; the scorer has the default size and random weights, which cost what fitted ones do."""
    scorer = Scorer(build_scorer("mlp", hidden=(32, 32), seed=0).eval(), {}, "random weights")
    return autosparse.prune(network, [batch], density=DENSITY, method=scorer if method == "scorer" else method, warn=False)


def vit(width: int) -> nn.Module:
    """torchvision's Vision Transformer of twelve layers for 1,000 classes, patches of 16 pixels; heads of 64."""
    with scoped(0, "large"):
        return import_torchvision().models.VisionTransformer(
            image_size=224, patch_size=16, num_layers=12, num_heads=width // 64, hidden_dim=width, mlp_dim=4 * width
        )


def images(count: int) -> tuple[Tensor, Tensor]:
    """A batch of noise with labels."""
    stream = generator(0, "large")
    return torch.randn(count, 3, 224, 224, generator=stream), torch.randint(1000, (count,), generator=stream)


def one_pass(network: nn.Module, batch: tuple[Tensor, Tensor]) -> object:
    """Forward and backward, with the gradients of all weights."""
    return torch.autograd.grad(functional.cross_entropy(network(batch[0]), batch[1]), list(network.parameters()))


def cut_rows(scores: float) -> list[dict[str, Any]]:
    """Seconds and memory of the cut, with the scores; raises AssertionError where it is not exact."""
    gc.collect()
    before, stream = resident_mib(forget_peak=True), generator(0, "cut")
    made = {str(layer): torch.randn(LAYER, generator=stream) for layer in range(max(1, round(scores / (LAYER[0] * LAYER[1]))))}
    masks: list[Mask] = []
    spent = seconds(lambda: masks.append(global_topk(made, DENSITY)))
    mask, peak = masks[0], resident_mib() - before
    total = sum(layer.numel() for layer in made.values())
    assert sum(int(kept.count_nonzero()) for kept in mask.values()) == keep_count(DENSITY, total), "another count than asked"
    lowest = min(float(made[name][kept].min()) for name, kept in mask.items())
    highest = max(float(made[name][~kept].max()) for name, kept in mask.items())
    assert lowest >= highest, f"a dropped score of {highest} is above a kept one of {lowest}"
    row = f"cut of {total / 1e9:g} billion scores"
    return [figure(row, "CPU s", [spent]), figure(f"{row}, memory", "GiB", [peak / 1024], "<= 12, the scores in it")]


if __name__ == "__main__":
    main()
