"""Examples in batches: what a training loop asks of the images or of whatever else a task consists of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from autosparse.models import seeding
from autosparse.models.specs.run_specs import DataSpec


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One pass over training examples from batch `start` on: which rows, in which order, is a function of seed and epoch alone.

    A batch has `size` examples over all ranks, of which this one takes the rows `mine`; `rank` is its number.
    """

    seed: int
    epoch: int
    start: int
    size: int
    mine: slice
    rank: int
    data: DataSpec  # with mean and std filled in
    channels_last: bool

    def steps(self, count: int) -> range:
        """The numbers, over the whole training, of the full batches of `count` examples that are left of this pass."""
        full = count // self.size
        return range(self.epoch * full + self.start, (self.epoch + 1) * full)

    def rows(self, count: int, device: torch.device | str = "cpu") -> list[Tensor]:
        """This rank's rows of each batch, int64, out of `count` examples; the last short batch is dropped."""
        order = torch.randperm(count, generator=seeding.generator(self.seed, "order", self.epoch)).to(device)
        return [order[index * self.size : (index + 1) * self.size][self.mine] for index in range(self.start, count // self.size)]


class Examples(Protocol):
    """One split of a data set. A batch is whatever the loss takes, on the device of the training."""

    @property
    def at_once(self) -> int | None:
        """How many are evaluated at a time; None = the batch size of the training."""
        ...

    def __len__(self) -> int: ...

    def epoch(self, order: Pass) -> Iterator[Any]:
        """The batches of a pass, augmented where the data set is."""
        ...

    def batches(self, rows: Sequence[Tensor], data: DataSpec, *, channels_last: bool) -> Iterator[Any]:
        """A batch for each of the int64 `rows`, in their order, not augmented. `data` has mean and std filled in."""
        ...
