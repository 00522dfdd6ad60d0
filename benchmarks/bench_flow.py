"""Seconds per 100 iterations of SynFlow on torchvision's ResNet-50 at 224 x 224, and peak memory.

Run with `python -m benchmarks.bench_flow`. The time between the first and the last of `--iterations` scorings on the way to density .05 is
scaled up to 100; what is done once (the copy, the last sort) is beside it. CPU seconds, of all threads, say more than seconds where the
machine is busy. Beside it stands a plain version: the same passes with every parameter's gradient and full-length bookkeeping in each
iteration, as in commit 82681a9. Memory (Linux only) is the peak beyond what the process held with the network, in multiples of the weights'
bytes; the activations of one image are in it.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from autosparse.models import seeding
from autosparse.models.criteria.iterative import ranks_of_death, ranks_with_revival
from autosparse.models.criteria.synaptic_flow import flow
from autosparse.models.masks.linearised import linearised, ones_for, settled
from autosparse.models.masks.mask import Mask, Scores, apply_, prunable
from autosparse.models.networks.torchvision_guard import import_torchvision
from benchmarks.bench_scoring import resident_mib
from benchmarks.reporting import figure, options, report

DENSITY = 0.05


def main() -> None:
    """Time both and report."""
    parser = options(__doc__, repeat=1)
    parser.add_argument("--iterations", type=int, default=10, help="iterations that are timed (default %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="height and width of the image (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with seeding.scoped(0, "weights"):
        network = import_torchvision().models.resnet50()
    images = torch.zeros(1, 3, args.size, args.size)
    ours, memory = [], []
    for _ in range(args.repeat):
        before = resident_mib(forget_peak=True)
        ours.append(timed(network, images, args.iterations, as_now))
        memory.append(resident_mib() - before)
    plain = [timed(network, images, args.iterations, as_before) for _ in range(args.repeat)]
    size = sum(param.numel() * param.element_size() for param in network.parameters()) / 2**20
    seconds, cpu, once = (list(values) for values in zip(*ours, strict=True))
    seconds_plain, cpu_plain, _ = (list(values) for values in zip(*plain, strict=True))
    rows: list[dict[str, Any]] = [
        figure("100 iterations", "s", seconds, "<= 57 on 2 free cores"),
        figure("100 iterations", "CPU s", cpu),
        figure("done once", "s", once),
        figure("100 iterations, plain", "s", seconds_plain),
        figure("100 iterations, plain", "CPU s", cpu_plain),
        figure("memory", "x weights", [peak / size for peak in memory], "<= 8 and the activations"),
    ]
    report("flow", rows, args)


def timed(network: nn.Module, images: Tensor, iterations: int, run: Any) -> tuple[float, float, float]:
    """(seconds of 100 iterations, their CPU seconds, seconds of all that is done once)."""
    start, times = time.perf_counter(), []
    run(network, images, iterations, lambda: times.append((time.perf_counter(), time.process_time())))
    seconds, cpu = ((times[-1][clock] - times[0][clock]) * 100 / (iterations - 1) for clock in (0, 1))
    return seconds, cpu, time.perf_counter() - start - seconds * iterations / 100


def as_now(network: nn.Module, images: Tensor, iterations: int, tick: Callable[[], None]) -> Scores:
    """The schedule as the criteria run it, without a second one where the first empties a layer."""
    linear, ones = linearised(network), ones_for(images)
    rules = settled(linear, ones)
    strengths = {name: param.detach() for name, param in prunable(network).items()}
    params = prunable(linear)

    def score_at(alive: Mask) -> Scores:
        tick()
        with torch.no_grad():
            for name, strength in strengths.items():
                torch.mul(strength.abs(), alive[name], out=params[name])
        return flow(linear, params, ones, rules)

    return ranks_of_death(score_at, params, iterations, DENSITY)


def as_before(network: nn.Module, images: Tensor, iterations: int, tick: Callable[[], None]) -> Scores:
    """The schedule with everything at full length, every parameter with a gradient, and the strengths looked up layer by layer."""
    linear, ones = linearised(network).requires_grad_(True), ones_for(images)
    strengths = {name: param.detach().abs() for name, param in prunable(network).items()}
    params = prunable(linear)

    def score_at(alive: Mask) -> Scores:
        tick()
        with torch.no_grad():
            for name, strength in strengths.items():
                params[name].copy_(strength)
        apply_(linear, alive)
        with torch.enable_grad():
            total = linear(ones).sum()
        slopes = torch.autograd.grad(total, list(params.values()))
        scores = {name: slope * param.detach() for slope, (name, param) in zip(slopes, params.items(), strict=True)}
        return {name: torch.where(alive[name], values, -1.0) for name, values in scores.items()}  # dead weights stay dead

    return ranks_with_revival(score_at, params, iterations, DENSITY)


if __name__ == "__main__":
    main()
