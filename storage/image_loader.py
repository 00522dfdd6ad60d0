"""Packed images decoded by other processes, batch by batch, in the order that is asked for: torch's DataLoader.

The processes come from a fork server. Fork copies a process that has threads (Ray's, torch's) with whatever locks these hold; spawn imports
torch anew in every process of every arm, which takes seconds. The server imports it once per worker, has no thread, and stays.
"""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from autosparse.models.errors import DataError
from autosparse.storage.image_pack import Packed

MOST_PROCESSES = 8
AHEAD = 2  # batches per process


class Sums(NamedTuple):
    """Exact integers of one channel."""

    pixels: int
    first: int
    second: int  # of the squares


class Decoded(NamedTuple):
    """What a process sends back: images uint8 (n, C, H, W), or an error with its details; the sums of each channel if asked for."""

    pixels: Tensor | None
    error: str | None = None
    details: Mapping[str, Any] = {}
    sums: tuple[Sums, ...] = ()


Asked = tuple[str, list[int]]  # a split and its rows


class Decoder(Dataset[Decoded]):
    """What the processes do. Errors come back as values, because a DataLoader puts the trace of its process into their text."""

    def __init__(self, packs: Mapping[str, Packed], *, sums: bool) -> None:
        self.packs, self.sums = packs, sums

    def __getitem__(self, asked: Asked) -> Decoded:
        split, rows = asked
        try:
            pixels = self.packs[split].pixels(np.array(rows, np.int64))
        except DataError as error:
            return Decoded(None, str(error), error.details)
        return Decoded(torch.from_numpy(pixels), sums=channel_sums(pixels) if self.sums else ())


class Order(Sampler[Asked]):
    """What is asked for; another list before each pass."""

    def __init__(self) -> None:
        self.asked: Iterable[Asked] = ()

    def __iter__(self) -> Iterator[Asked]:
        return iter(self.asked)


class ImageLoader:
    """Processes that decode, started when they are first needed and kept until `close`. With `processes` 0 it is done in this one."""

    def __init__(self, packs: Mapping[str, Packed], *, processes: int, pin: bool = False, sums: bool = False) -> None:
        self._decoder = Decoder(packs, sums=sums)
        self._processes, self._pin = min(processes, MOST_PROCESSES), pin
        self._free: list[DataLoader[Decoded]] = []
        self._all: list[DataLoader[Decoded]] = []

    def read(self, split: str, rows: Sequence[Tensor]) -> Iterator[Tensor]:
        """Images uint8 (n, C, H, W) for each of the int64 rows, in their order. Raises DataError."""
        for found in self.decoded(split, rows):
            if found.pixels is None:
                raise DataError(str(found.error), found.details)
            yield found.pixels

    def decoded(self, split: str, rows: Sequence[Tensor]) -> Iterator[Decoded]:
        """The same with the errors as values. A pass that begins while another is not over has processes of its own."""
        loader = self._free.pop() if self._free else self._made()
        order: Any = loader.sampler
        order.asked = ((split, some.tolist()) for some in rows)
        try:
            yield from loader
        finally:
            self._free.append(loader)

    def start(self, split: str) -> None:
        """Start the processes now, and wait until they decode: nobody then takes the first batch of a training for a step that hangs."""
        for _ in self.decoded(split, [torch.tensor([0])] * self._processes):
            pass

    def close(self) -> None:
        """End the processes."""
        for loader in self._all:
            if loader._iterator is not None:  # type: ignore[attr-defined]  # it has no public way to end what it keeps
                loader._iterator._shutdown_workers()  # type: ignore[attr-defined]
        self._all, self._free = [], []

    def _made(self) -> "DataLoader[Decoded]":
        context = multiprocessing.get_context("forkserver") if self._processes else None
        if context:
            context.set_forkserver_preload(["__main__", __name__])
        loader = DataLoader(
            self._decoder,
            batch_size=None,
            sampler=Order(),
            collate_fn=cast(Any, _as_it_is),
            num_workers=self._processes,
            prefetch_factor=AHEAD if self._processes else None,
            persistent_workers=self._processes > 0,
            multiprocessing_context=context,
            worker_init_fn=_end_with_parent,
            pin_memory=self._pin,
            generator=torch.Generator(),  # else each pass draws from the generator of the training
        )
        self._all.append(loader)
        return loader


@dataclass(frozen=True)
class SplitReader:
    """One split of a loader."""

    loader: ImageLoader
    split: str

    def read(self, rows: Sequence[Tensor]) -> Iterator[Tensor]:
        """Images uint8 (n, C, H, W) for each of the int64 rows, in their order. Raises DataError."""
        return self.loader.read(self.split, rows)


def channel_sums(pixels: np.ndarray) -> tuple[Sums, ...]:
    """Of uint8 (N, C, H, W). Sums of squares of at most 256 pixels are whole numbers that float32 holds."""
    found = []
    for channel in range(pixels.shape[1]):
        flat = pixels[:, channel].reshape(-1)
        second = 0
        for start in range(0, flat.size, 2**20):
            part = flat[start : start + 2**20].astype(np.float32)
            full = part[: part.size // 256 * 256].reshape(-1, 256)
            rest = part[full.size :]
            second += int(np.einsum("ij,ij->i", full, full).sum(dtype=np.float64)) + int(rest @ rest)
        found.append(Sums(flat.size, int(flat.sum(dtype=np.uint64)), second))
    return tuple(found)


def _end_with_parent(number: int) -> None:
    """End this process with the one that it decodes for. torch looks at the fork server, and misses one that died before this began."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "of a DataLoader's process"

    def wait() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _as_it_is(found: Decoded) -> Decoded:
    return found


@contextlib.contextmanager
def image_loader(packs: Mapping[str, Packed], *, processes: int, sums: bool = False) -> Iterator[ImageLoader]:
    """A loader that is closed behind the block."""
    loader = ImageLoader(packs, processes=processes, sums=sums)
    try:
        yield loader
    finally:
        loader.close()
