"""Which rows of a data set a spec wants: a part split off for the test, then as many as a limit says."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version

import numpy as np

from autosparse.models.errors import DataError, not_allowed
from autosparse.storage.image_sources.source import NO_LABEL, SPLIT_NAMES, DataFields, ImageSource, Rows, Split

CHANCE = 4.0


@dataclass(frozen=True)
class Half:
    """Training or test images as a spec wants them; nothing is decoded before `read`."""

    rows: Rows
    name: str  # train or test
    limit: int | None
    size: int | None
    share: tuple[float, int] | None  # the part that is split off for the test, and the seed that draws it

    @property
    def key(self) -> str:
        """A text that changes whenever what `read` returns changes for the same limit and colour."""
        bigger = "" if self.size is None else f" size {self.size} torchvision {version('torchvision')}"
        return f"{self.rows.key}{bigger}" + ("" if self.share is None else f" {self.name} of {self.share}")

    @property
    def entry(self) -> str:
        """What of it, for people who look into the cache."""
        return f"{self.name}-{'all' if self.limit is None else self.limit}"

    def read(self, *, colour: bool) -> Split:
        """Decode it. Raises DataError naming what cannot be used."""
        rows, notes = self.chosen
        return Split(self.rows.images(rows, self.size, colour=colour), self.rows.labels[rows], self.rows.classes, notes)

    @cached_property
    def chosen(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """The rows of the split that it consists of, in its order, and how they were chosen. Raises DataError for a label that is none."""
        labels = self.rows.labels
        notes: tuple[str, ...] = ()
        rows = np.arange(len(labels))
        if self.share is not None:
            rows = split_off(labels, *self.share)[self.name == "test"]
            notes += (f"{self.name}: {len(rows):,} of {len(labels):,} images, split by data.test_share {self.share[0]}",)
        if self.limit is not None and self.limit < len(rows):
            rows, first = rows[within(labels[rows], self.limit)], rows[: self.limit]
            if not np.array_equal(rows, first):
                notes += (f"{self.name}: the first {self.limit:,} images are not of all classes alike, so that a balanced sample is taken",)
        self._check(labels, rows, len(self.rows.classes))
        return rows, notes

    def _check(self, labels: np.ndarray, rows: np.ndarray, classes: int) -> None:
        strangers = rows[(labels[rows] < 0) | (labels[rows] >= classes)]
        if len(strangers):
            label = labels[strangers[0]]
            wrong = "no label" if label == NO_LABEL else f"label {label} is not allowed"
            raise DataError(f"{self.rows.where(int(strangers[0]))}: {wrong}; allowed: 0 to {classes - 1}")


def halves(source: ImageSource, data: DataFields) -> tuple[Half, Half]:
    """Train and test. Raises DataError where there is no test split and none is split off, SpecError where both are there."""
    train, test = source.rows("train"), source.rows("test")
    place = data.path or data.name
    assert train is not None, "a source refuses a set without a training split"
    if test is None and not data.test_share:
        names = ", ".join(SPLIT_NAMES["test"])
        raise DataError(
            f"data.path: {place} has no test split with labels ({names}); allowed: one, or data.test_share=0.2, which splits a fifth off"
        )
    if test is not None and data.test_share:
        raise not_allowed("data.test_share", data.test_share, f"0, because {place} has a test split of its own")
    share = (data.test_share, data.test_seed) if test is None else None
    return Half(train, "train", data.train_limit, data.size, share), Half(test or train, "test", data.test_limit, data.size, share)


def split_off(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of train and of test, each in their order: of every class `share`, rounded, but one row at least on either side.

    The draw is a sha256 of seed and row, so that it is the same for ever and everywhere. Raises DataError where no class has two rows.
    """
    test = np.zeros(len(labels), bool)
    draw = np.array([hashlib.sha256(f"{seed} {row}".encode()).digest()[:8] for row in range(len(labels))], "S8")
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        test[rows[np.argsort(draw[rows], kind="stable")[:count]]] = True
    if not test.any():
        raise DataError(f"data.test_share: {share} of {len(labels):,} images is none; allowed: a set with two images of a class")
    return np.flatnonzero(~test), np.flatnonzero(test)


def within(labels: np.ndarray, limit: int) -> np.ndarray:
    """Places of `limit` rows: the first ones, if a shuffled set may begin so, else one of each class in turn.

    It may where no class is less than half or more than twice of its fair share (its part of all rows times `limit`) by more than CHANCE
    standard deviations of what a random draw has (hypergeometric), and where the first rows are not all of one class among several.
    """
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    there, fair = np.bincount(classes[:limit], minlength=len(counts)), limit * counts / len(labels)
    part, rest = counts / len(labels), (len(labels) - limit) / max(len(labels) - 1, 1)
    chance = CHANCE * np.sqrt(limit * part * (1 - part) * rest)
    missed, crowded = (there < fair / 2) & (there < fair - chance), (there > 2 * fair) & (there > fair + chance)
    alone = limit > 1 and len(counts) > 1 and np.count_nonzero(there) == 1
    if not (missed.any() or crowded.any() or alone):
        return np.arange(limit)
    order = np.argsort(classes, kind="stable")  # by class, then by row
    turn = np.empty(len(labels), np.int64)
    turn[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.lexsort((np.arange(len(labels)), turn))[:limit]
