"""What `hold` costs in a training step: two copies of a network, one of them held, take turns step by step in one process.

A step is forward, loss, backward and AdamW, at density .05, in milliseconds of processor time: other work on a shared machine blurs the
clock far more. Target: the ratio of the medians at most 1.05. `inside` is what the held step spends in hold's own code, by the rest of it.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.nn import functional

from autosparse.library.held_parameter import Bits
from autosparse.library.holding import Held, hold
from autosparse.library.mask import Mask
from autosparse.models.masks.mask import prunable
from autosparse.models.networks.torchvision_guard import import_torchvision
from benchmarks.reporting import arguments, report


def main() -> None:
    """Print a row per network and optimizer."""
    options = arguments(__doc__, _add)
    torch.set_flush_denormal(True)
    torch.set_num_threads(options.threads)
    report("hold", [compare(name, build, options) for name, build in NETWORKS.items()], options)


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=64)


def compare(name: str, build: Callable[[], nn.Module], options: argparse.Namespace) -> dict[str, object]:
    """Milliseconds of a step of the free and of the held copy; the first three pairs warm up."""
    stream = torch.Generator().manual_seed(0)
    free = build()
    held = copy.deepcopy(free)
    mask = Mask.of({key: torch.rand(param.shape, generator=stream) < 0.05 for key, param in prunable(held).items()})
    images = torch.randn(options.batch_size, 3, 32, 32, generator=stream)
    labels = torch.randint(0, 10, (options.batch_size,), generator=stream)
    spent = [0.0]
    with patch.object(Bits, "gradient", clocked(Bits.gradient, spent)), patch.object(Held, "after_step", clocked(Held.after_step, spent)):
        steps, holding = [stepper(free, images, labels), stepper(held, images, labels)], hold(held, mask)
        seconds, shares = ([], []), []
        for turn in range(options.steps + 3):
            for one in (turn % 2, 1 - turn % 2):
                spent[0] = 0.0
                seconds[one].append(steps[one]())
                shares += [spent[0] / (seconds[one][-1] - spent[0])] if one else []
    free_ms, held_ms = (statistics.median(times[3:]) * 1000 for times in seconds)
    return {
        "network": name,
        "weights": mask.total,
        "free_ms": free_ms,
        "held_ms": held_ms,
        "ratio": round(held_ms / free_ms, 4),
        "inside": round(statistics.median(shares[3:]), 4),
        "n": options.steps,
        "violations": holding.violations(),
        "target": "<= 1.05",
    }


def clocked(function: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """The function, which adds the processor seconds of each call to `spent`."""

    def call(*args: Any) -> Any:
        start = time.process_time()
        try:
            return function(*args)
        finally:
            spent[0] += time.process_time() - start

    return call


def stepper(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], float]:
    """A function that does one step and returns its seconds of processor time."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)

    def step() -> float:
        start = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        return time.process_time() - start

    return step


def resnet18() -> nn.Module:
    """torchvision's, with ten outputs."""
    return import_torchvision().models.resnet18(weights=None, num_classes=10)


def small_vit() -> nn.Module:
    """torchvision's VisionTransformer with 4x4 patches, six layers of width 192."""
    return import_torchvision().models.VisionTransformer(
        image_size=32, patch_size=4, num_layers=6, num_heads=3, hidden_dim=192, mlp_dim=768, num_classes=10
    )


NETWORKS = {"resnet18 32x32": resnet18, "vit 6x192 32x32": small_vit}

if __name__ == "__main__":
    main()
