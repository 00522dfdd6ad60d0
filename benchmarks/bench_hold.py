"""What `hold` costs in a training step: one network is held and let go of in turns, step by step in one process.

A step is forward, loss, backward and AdamW, at density .05, in milliseconds of processor time: other work on a shared machine blurs the
clock far more. Two copies of a network will not do: where their weights lie in memory makes up to 10 % of a step. Target: the ratio of
the medians at most 1.05. `inside` is what the held step spends in hold's own code, by the rest of it.
"""

import argparse
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
    """Milliseconds of a free and of a held step; the first three pairs warm up."""
    stream, network = torch.Generator().manual_seed(0), build()
    mask = Mask.of({key: torch.rand(param.shape, generator=stream) < 0.05 for key, param in prunable(network).items()})
    images = torch.randn(options.batch_size, 3, 32, 32, generator=stream)
    labels = torch.randint(0, 10, (options.batch_size,), generator=stream)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)

    def step() -> float:
        start = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        return time.process_time() - start

    free, held, spent, violations = [], [], [0.0], 0
    with patch.object(Bits, "gradient", clocked(Bits.gradient, spent)), patch.object(Held, "after_step", clocked(Held.after_step, spent)):
        for _ in range(options.steps + 3):
            free.append(step())
            with hold(network, mask, optimizer) as holding:
                spent[0] = 0.0
                held.append((step(), spent[0]))
                violations += holding.violations()
    free_ms = statistics.median(free[3:]) * 1000
    held_ms = statistics.median(whole for whole, _ in held[3:]) * 1000
    return {
        "network": name,
        "weights": mask.total,
        "free_ms": free_ms,
        "held_ms": held_ms,
        "ratio": round(held_ms / free_ms, 4),
        "inside": round(statistics.median(inside / (whole - inside) for whole, inside in held[3:]), 4),
        "n": options.steps,
        "violations": violations,
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
