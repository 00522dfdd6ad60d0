"""Images per second of images that are streamed, against a bare torch DataLoader: same files, same decoding, same processes.

Writes N JPEGs of 224 x 224 in folders, opens them as a run does with a budget that they exceed, and takes turns epoch by epoch: ours
is what a training loop is given (decoded, normalised), the bare one a Dataset over the files, Pillow, one uint8 batch, the same
normalisation. Each epoch is `--epoch` images from a new order. Targets: ratio >= 0.9, at most 8 GiB, equal bits over a resume.
"""

import argparse
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from autosparse.models.specs.run_specs import DataSpec
from autosparse.models.training.examples import Pass
from autosparse.models.training.images import normalise
from autosparse.tasks.worker.loaders import close_all
from autosparse.tasks.worker.problem import StreamedProblem, open_problem
from benchmarks.reporting import arguments, figure, report

SIDE, CLASSES, BATCH = 224, 10, 128


def main() -> None:
    """Print a row per figure."""
    options = arguments(__doc__, _add)
    torch.set_num_threads(options.processes)
    folder = Path(tempfile.mkdtemp(prefix="streaming-", dir=options.folder))
    try:
        with Memory() as memory:
            rows = measured(options, folder)
        report("streamed images", [*rows, figure("peak memory, all processes", "GiB", [memory.peak / 2**30], "<= 8")], options)
    finally:
        close_all()
        shutil.rmtree(folder)


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epoch", type=int, default=2_560, help="images of each measurement (default %(default)s)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where the images are written for the while")


def measured(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Write the images, open them, and take turns."""
    written(folder / "images", options.images)
    os.environ["AUTOSPARSE_IMAGE_MEMORY"] = "1MB"
    spec = DataSpec(name="image_folder", path=str(folder / "images"), test_share=0.01)
    start = time.perf_counter()
    problem = open_problem(spec, folder / "cache", lambda message: print(message, flush=True))
    opening = time.perf_counter() - start
    assert isinstance(problem, StreamedProblem)
    train, bare = problem.examples("train", "cpu"), Bare(folder / "images", options.processes)
    count = options.epoch // BATCH * BATCH
    ours_s, bare_s = [], []
    for epoch in range(options.repeat + 1):  # the first pair starts the processes
        order = torch.randperm(problem.sizes["train"], generator=torch.Generator().manual_seed(epoch))[:count].split(BATCH)
        ours_s.append(timed(train.batches(order, problem.data, channels_last=True)))
        bare_s.append(timed(bare.batches(order, problem.data)))
    ratios = [other / own for own, other in zip(ours_s[1:], bare_s[1:], strict=True)]
    return [
        figure("opening for the first time", "s", [opening]),
        figure("streamed", "images/s", [count / one for one in ours_s[1:]]),
        figure("bare DataLoader", "images/s", [count / one for one in bare_s[1:]]),
        figure("ratio, pair by pair", "", ratios, ">= 0.9"),
        figure("batches that differ over a resume", "", [resumed(problem)], "0"),
    ]


def timed(batches: Iterator[Any]) -> float:
    """Seconds of a pass."""
    start = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - start


def resumed(problem: StreamedProblem) -> float:
    """How many of the last batches of an epoch are not those of a second process pool that begins there."""
    steps = problem.sizes["train"] // BATCH
    given: dict[str, Any] = {"seed": 3, "epoch": 1, "size": BATCH, "mine": slice(None), "rank": 0, "channels_last": True}
    begin = max(steps - 4, 0)

    def passed(start: int) -> list[tuple[Tensor, Tensor]]:
        batches = list(problem.examples("train", "cpu").epoch(Pass(start=start, data=problem.data, **given)))
        return batches[begin - start :]

    through = passed(max(begin - 8, 0))
    problem.loaders.clear()
    again = passed(begin)
    return float(sum(not (torch.equal(a, c) and torch.equal(b, d)) for (a, b), (c, d) in zip(through, again, strict=True)))


class Files(Dataset[tuple[Tensor, int]]):
    """What one writes by hand over a folder of images."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted((folder).rglob("*.jpg"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        with Image.open(self.files[row]) as image:
            pixels = np.array(image.convert("RGB"))
        return torch.from_numpy(pixels).permute(2, 0, 1), int(self.files[row].parent.name)


class Bare:
    """A DataLoader of that, with processes that stay."""

    def __init__(self, folder: Path, processes: int) -> None:
        self.order: list[list[int]] = []
        self.loader = DataLoader(
            Files(folder), batch_sampler=self, num_workers=processes, persistent_workers=True, multiprocessing_context="forkserver"
        )

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.order)

    def batches(self, rows: tuple[Tensor, ...], data: DataSpec) -> Iterator[Any]:
        """Normalised as ours."""
        self.order = [some.tolist() for some in rows]
        for pixels, labels in self.loader:
            yield normalise(pixels, data.mean, data.std, channels_last=True), labels


class Memory:
    """The most memory that this process and those it started hold at once; pages that they share count once."""

    def __enter__(self) -> "Memory":
        self.peak, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            self.peak = max(self.peak, sum(_share(pid) for pid in _family(os.getpid())))


def _family(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents.setdefault(int((folder / "stat").read_text().rpartition(")")[2].split()[1]), []).append(int(folder.name))
            except OSError:  # it has ended
                continue
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


def _share(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 2**10 for line in lines if line.startswith("Pss:")), 0)


def written(folder: Path, count: int) -> None:
    """JPEGs with texture at several scales, about 15 kB each, as photographs of that size have."""
    for label in range(CLASSES):
        (folder / str(label)).mkdir(parents=True)
    with multiprocessing.get_context("forkserver").Pool(os.cpu_count()) as pool:
        pool.starmap(_write, [(folder, begin, min(begin + 500, count)) for begin in range(0, count, 500)], chunksize=1)


def _write(folder: Path, begin: int, end: int) -> None:
    stream = np.random.default_rng(begin)
    for row in range(begin, end):
        layers = [Image.fromarray(stream.integers(0, 256, (side, side, 3), np.uint8)).resize((SIDE, SIDE)) for side in (7, 28, 112)]
        mixed = Image.blend(Image.blend(layers[0], layers[1], 0.4), layers[2], 0.2)
        mixed.save(folder / str(row % CLASSES) / f"{row:07}.jpg", quality=85)


if __name__ == "__main__":
    main()
