"""Images per second of the pipeline's training loop against a bare PyTorch loop: same network, data, augmentation, threads.

The two take turns epoch by epoch in one process, so that a drift of the machine's speed meets both. Target: ratio >= 0.95.
"""

import argparse
import statistics
import time

import torch
from torch import nn
from torch.nn import functional

from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import global_topk
from autosparse.models.networks.build import build_network
from autosparse.models.specs.run_specs import DataSpec, JobSpec, NetworkSpec, TrainSpec
from autosparse.models.training.images import ImageSet
from autosparse.models.training.loop import fit
from autosparse.models.training.trainer import Trainer
from benchmarks.reporting import arguments, report

DATA = DataSpec(name="parquet", mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.243, 0.262), augment="shift_flip", pad=2)


def main() -> None:
    """Print a row per density; both loops train the same masked network."""
    options = arguments(__doc__, _add)
    torch.set_flush_denormal(True)
    torch.set_num_threads(options.threads)
    rows = []
    for density in (1.0, 0.05):
        ratios, ours, bare = compare(options, density)
        rows.append(
            {
                "density": density,
                "pipeline_images_per_s": round(statistics.median(ours)),
                "bare_images_per_s": round(statistics.median(bare)),
                "ratio_median": round(statistics.median(ratios), 3),
                "ratio_min": round(min(ratios), 3),
                "n": len(ratios),
            }
        )
    report("training loop", rows, options)


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=7)


def compare(options: argparse.Namespace, density: float) -> tuple[list[float], list[float], list[float]]:
    """Ratios pair by pair, and images per second of each loop; the first pair warms up."""
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (options.images, 3, 32, 32), generator=stream, dtype=torch.uint8)
    labels = torch.randint(0, 10, (options.images,), generator=stream)
    ours, bare = [], []
    for _ in range(options.repeat + 1):
        ours.append(options.images / timed(lambda: pipeline_epoch(images, labels, density)))
        bare.append(options.images / timed(lambda: bare_epoch(images, labels, density)))
    return [a / b for a, b in zip(ours[1:], bare[1:], strict=True)], ours[1:], bare[1:]


def timed(work: object) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - start


def prepared(density: float) -> tuple[nn.Module, masks.Mask]:
    """The scale model's network and a random mask."""
    network = build_network(NetworkSpec(name="resnet8", width=32, stem_stride=2), image_shape=(3, 32, 32), num_classes=10, seed=0)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    stream = torch.Generator().manual_seed(1)
    scores = {name: torch.rand(p.shape, generator=stream) for name, p in masks.prunable(network).items()}
    return network, global_topk(scores, density)


def pipeline_epoch(images: torch.Tensor, labels: torch.Tensor, density: float) -> None:
    """One epoch of `autosparse.models.training.loop.fit`, evaluation on 128 images included."""
    network, mask = prepared(density)
    spec = TrainSpec(epochs=1, batch_size=128, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule="constant")
    test = ImageSet(images[:128], labels[:128])
    trainer = Trainer(
        network=network, forward=network, spec=spec, data=DATA, job=JobSpec(), train=ImageSet(images, labels), test=test, seed=0, mask=mask
    )
    fit(trainer, on_epoch=lambda epoch: None)


def bare_epoch(images: torch.Tensor, labels: torch.Tensor, density: float) -> None:
    """What one would write by hand: index, normalise, shift, flip, step, multiply the masks in after the step."""
    network, mask = prepared(density)
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    mean = torch.tensor(DATA.mean).view(1, 3, 1, 1) * 255
    scale = 1 / (torch.tensor(DATA.std).view(1, 3, 1, 1) * 255)
    held = [(p, mask[name].to(p.dtype)) for name, p in network.named_parameters() if name in mask] if density < 1 else []
    for rows in torch.randperm(len(labels)).split(128):
        batch = ((images[rows].float() - mean) * scale).to(memory_format=torch.channels_last)
        padded = functional.pad(batch, (2, 2, 2, 2))
        top, left = torch.randint(0, 5, (2,)).tolist()
        batch = padded[:, :, top : top + 32, left : left + 32]
        batch = torch.where((torch.rand(len(rows)) < 0.5).view(-1, 1, 1, 1), batch.flip(3), batch)
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(network(batch.contiguous(memory_format=torch.channels_last)), labels[rows])
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for parameter, keep in held:
                parameter.mul_(keep)


if __name__ == "__main__":
    main()
