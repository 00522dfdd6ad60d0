"""Seconds per epoch of retraining the scale model under SynFlow's masks, whole and compacted (`fanout.compact`).

The two take turns epoch by epoch in one process, so that a drift of the machine's speed meets both. Target: 2.4 times at density .02,
1.65 times at .05, on one thread.
"""

import argparse
import statistics
import time

import torch
from torch import nn

from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.masks.mask import Mask
from autosparse.models.networks.build import build_network
from autosparse.models.specs.run_specs import JobSpec, NetworkSpec, TrainSpec
from autosparse.models.training.images import ImageSet
from autosparse.models.training.loop import batches, evaluate
from autosparse.models.training.step import train_step
from autosparse.models.training.trainer import Trainer
from autosparse.tasks.worker.compacted import compacted
from benchmarks.bench_training import DATA
from benchmarks.reporting import arguments, report

SHAPE = (3, 32, 32)


def main() -> None:
    """Print a row per density."""
    options = arguments(__doc__, _add)
    torch.set_flush_denormal(True)
    torch.set_num_threads(options.threads)
    rows = []
    for density in options.densities:
        network = build_network(NetworkSpec(name="resnet8", width=32, stem_stride=2), image_shape=SHAPE, num_classes=10, seed=options.seed)
        mask = synflow(network, density, min(options.densities))
        start = time.perf_counter()
        made = compacted(network, mask, SHAPE)
        seconds = time.perf_counter() - start
        whole, small = trainer(options, network, mask), trainer(options, made.network, made.mask)
        times = [(epoch_seconds(whole), epoch_seconds(small)) for _ in range(options.repeat + 1)][1:]
        sizes = made.facts["parameters"]
        rows.append(
            {
                "density": density,
                "whole_s_per_epoch": round(statistics.median(first for first, _ in times), 2),
                "compacted_s_per_epoch": round(statistics.median(second for _, second in times), 2),
                "times_faster": round(statistics.median(first / second for first, second in times), 2),
                "least": round(min(first / second for first, second in times), 2),
                "parameters": round(sizes["before"] / sizes["after"], 2),
                "multiply_adds": round(made.facts["multiply_adds"]["before"] / made.facts["multiply_adds"]["after"], 2),
                "compaction_s": round(seconds, 2),
                "n": len(times),
            }
        )
    report("retraining of compacted networks", rows, options)


def synflow(network: nn.Module, density: float, smallest: float) -> Mask:
    """SynFlow's mask, as the fan-out cuts it: all densities from the scores of the smallest one."""
    criterion = CRITERIA["synflow"]
    batch = [(torch.ones(1, *SHAPE), torch.zeros(1, dtype=torch.int64))]
    return criterion.allocate(criterion.score(network, batch, torch.Generator().manual_seed(0), head=True, density=smallest), density)


def trainer(options: argparse.Namespace, network: nn.Module, mask: Mask) -> Trainer:
    """The pipeline's training of one network on random images."""
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (options.images, *SHAPE), generator=stream, dtype=torch.uint8)
    data = ImageSet(images, torch.randint(0, 10, (options.images,), generator=stream))
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    spec = TrainSpec(epochs=6, batch_size=128, lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule="constant")
    test = ImageSet(data.images[:500], data.labels[:500])
    return Trainer(network=network, forward=network, spec=spec, data=DATA, job=JobSpec(), train=data, test=test, seed=0, mask=mask)


def epoch_seconds(trainer: Trainer) -> float:
    """Seconds of one epoch with its evaluation."""
    start = time.perf_counter()
    trainer.forward.train()
    for batch in batches(trainer, epoch=trainer.step // trainer.steps_per_epoch):
        train_step(trainer, batch, (0.01, 0.9))
        trainer.step += 1
    evaluate(trainer)
    return time.perf_counter() - start


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--densities", type=float, nargs="+", default=[0.05, 0.02])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--seed", type=int, default=1)


if __name__ == "__main__":
    main()
