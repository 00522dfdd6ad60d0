"""Images in Parquet files as the Hugging Face Hub has them, in a local folder or on S3."""

import bisect
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import pyarrow as pa

from autosparse.storage.addresses import LOCAL, S3, address_kind
from autosparse.storage.image_sources.decoding import Encoded, decode
from autosparse.storage.image_sources.parquet_columns import (
    Shard,
    images_of,
    numbered,
    numbers,
    open_bytes,
    open_file,
    open_shard,
    unlabelled,
)
from autosparse.storage.image_sources.parquet_layout import missing_shards, split_files
from autosparse.storage.image_sources.source import SPLIT_NAMES, DataFields
from autosparse.storage.open_store import open_store


class ParquetImages:
    """The Parquet files below `path`, in any layout of the Hub (parquet_layout.py), with any of its columns (parquet_columns.py)."""

    def __init__(self, data: DataFields) -> None:
        address_kind("data.path", data.path, LOCAL, S3)
        self.data, self.store = data, open_store(str(data.path))

    def rows(self, split: str) -> "ParquetRows | None":
        """A test split in which no row has a label, as of sets that are for a contest, is passed over for the next."""
        if split == "train":
            return self._train
        notes: tuple[str, ...] = ()
        for word in SPLIT_NAMES[split]:
            shards = self._shards(word)
            if shards and not unlabelled(shards):
                labels = numbers(shards, self._train.classes, self.store, train=self._train.shards)
                return ParquetRows(self, shards, labels, self._train.classes, notes + missing_shards(shard.key for shard in shards))
            notes += (f"the split {word} has no labels and is passed over",) if shards else ()
        return None

    @cached_property
    def _train(self) -> "ParquetRows":
        shards = next(filter(None, map(self._shards, SPLIT_NAMES["train"])))
        return ParquetRows(self, shards, *numbered(shards, self.store), missing_shards(shard.key for shard in shards))

    @cached_property
    def _files(self) -> dict[str, list[str]]:
        return split_files(self.store.list(), field="data.path", root=self.store.root, joint="/")

    def _shards(self, word: str) -> list[Shard]:
        return [open_shard(self.store, key, self.data) for key in self._files.get(word, ())]


class ParquetRows:
    """The rows of one split, in the order of its files."""

    def __init__(
        self, source: ParquetImages, shards: list[Shard], labels: np.ndarray, classes: tuple[str, ...], notes: tuple[str, ...]
    ) -> None:
        self.store, self.shards, self.labels, self.classes, self.notes = source.store, shards, labels, classes, notes
        self._starts = np.cumsum([0, *(len(shard.labels) for shard in shards)]).tolist()

    @property
    def key(self) -> str:
        """sha256 of the split's files in their order, whatever their names, with the columns and what their labels mean."""
        found = [f"{shard.digest} {shard.image} {shard.label}" for shard in self.shards]
        return f"parquet {found} {self.classes}"

    def where(self, row: int) -> str:
        shard = bisect.bisect_right(self._starts, row) - 1
        return f"{self.store.uri(self.shards[shard].key)} row {row - self._starts[shard]}"

    def images(self, rows: np.ndarray, size: int | None, *, colour: bool) -> np.ndarray:
        return decode(self.fetch(rows), len(rows), size, colour=colour)

    def fetch(self, rows: np.ndarray) -> Iterator[Encoded]:
        """The encoded images of these rows, in the order of the files; each says its place in `rows`. Only their row groups are read."""
        order = np.argsort(rows, kind="stable")
        ends = np.searchsorted(rows[order], self._starts)
        for shard, start, first, last in zip(self.shards, self._starts, ends, ends[1:], strict=False):
            if first < last:
                places = order[first:last]
                for place, row, data in self._fetch_shard(shard, places, rows[places] - start):
                    yield Encoded(place, f"{self.store.uri(shard.key)} row {row}", data)

    def _fetch_shard(self, shard: Shard, places: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, int, bytes | None]]:
        name = self.store.uri(shard.key)
        with open_bytes(self.store, shard.key) as source:
            file = open_file(name, source)
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            group_of = np.repeat(np.arange(len(sizes)), sizes)
            groups = np.unique(group_of[rows])
            inside = np.flatnonzero(np.isin(group_of, groups))  # the rows of these groups
            passed = done = 0
            for piece in images_of(name, file, shard, groups.tolist()):
                there = inside[passed : passed + len(piece)]
                wanted = done + np.arange(np.searchsorted(rows[done:], there[-1], side="right"))
                for index, data in zip(wanted, piece.take(pa.array(np.searchsorted(there, rows[wanted]))).to_pylist(), strict=True):
                    yield int(places[index]), int(rows[index]), data
                passed, done = passed + len(piece), done + len(wanted)
                if done == len(rows):
                    return
