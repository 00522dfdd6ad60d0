"""One part of a feature data set: a Parquet file with one row per prunable weight of one source network and seed.

Rows stand in canonical order: layers in module order, then the index in the flattened layer. A row group holds weights of one
layer only. Facts of layers and of the source are metadata of the file, never columns.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from autosparse.models.errors import DataError
from autosparse.storage.disk import disk_error
from autosparse.storage.store import dump_json

SCHEMA = pa.schema(
    [
        pa.field("layer", pa.uint16(), nullable=False),
        pa.field("position", pa.uint32(), nullable=False),
        pa.field("weight", pa.float32(), nullable=False),
        pa.field("gradient", pa.float32(), nullable=False),
        pa.field("rounds_survived", pa.uint8(), nullable=False),
        pa.field("growth", pa.uint8(), nullable=False),
    ]
)
COLUMNS = tuple(SCHEMA.names)
METADATA_KEY = b"autosparse"
ROW_GROUP_ROWS = 131_072
ROW_BYTES = 9  # at most, on disk

# zstd below level 1 leaves random mantissa bytes as they are: 6 % larger than level 3, and read 1.7 times as fast
PARQUET: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": -1,
    "use_dictionary": ["layer", "rounds_survived", "growth"],
    "column_encoding": {"position": "DELTA_BINARY_PACKED", "weight": "BYTE_STREAM_SPLIT", "gradient": "BYTE_STREAM_SPLIT"},
    "write_statistics": ["layer", "position"],
    "write_page_checksum": True,
    "data_page_version": "2.0",
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """A staged local file that is ready to be committed."""

    path: Path
    rows: int
    metadata: dict[str, Any]


class ShardWriter:
    """Writes one part, layer by layer. Use it through `write_shard`."""

    def __init__(self, path: Path, writing: Path, metadata: Mapping[str, Any]) -> None:
        self.path = path
        self.rows = 0
        self.metadata = plain_metadata(metadata)
        self._writing = writing
        self._layers: list[dict[str, Any]] = self.metadata["layers"]
        self._added = 0
        with self._disk():
            self._file = pa.OSFile(str(writing), "wb")
            self._parquet = pq.ParquetWriter(self._file, SCHEMA.with_metadata({METADATA_KEY: json.dumps(self.metadata)}), **PARQUET)

    @property
    def part(self) -> Part:
        """The finished part, after the `with` block."""
        return Part(path=self.path, rows=self.rows, metadata=self.metadata)

    def add(self, layer: int, weights: np.ndarray, gradients: np.ndarray, rounds: np.ndarray, growth: np.ndarray) -> None:
        """Append all weights of layer number `layer`: flat arrays of float32, float32, uint8 and uint8, of the layer's `numel`.

        Raises DataError, naming the layer, for a NaN or infinite value, a layer out of order, another shape or type.
        """
        columns = {"weight": weights, "gradient": gradients, "rounds_survived": rounds, "growth": growth}
        self._check(layer, columns)
        for start in range(0, len(weights), ROW_GROUP_ROWS):
            stop = min(start + ROW_GROUP_ROWS, len(weights))
            rows = {"layer": np.full(stop - start, layer, np.uint16), "position": np.arange(start, stop, dtype=np.uint32)}
            rows |= {name: values[start:stop] for name, values in columns.items()}
            with self._disk():
                self._parquet.write_batch(pa.record_batch(rows, schema=SCHEMA), row_group_size=ROW_GROUP_ROWS)
        self._added += 1
        self.rows += len(weights)

    def finish(self) -> None:
        """Write the footer and move the file to its place. Raises DataError where a layer has not been added."""
        if self._added != len(self._layers):
            name = self._layers[self._added]["name"]
            raise DataError(f"{self.path}: {self._added} of {len(self._layers)} layers were added; the next is {name}")
        with self._disk():
            self._parquet.close()
            self._file.close()
            os.replace(self._writing, self.path)

    def discard(self) -> None:
        """Leave nothing behind that was not finished."""
        self._parquet.is_open = False  # else its finaliser writes a footer: a short file that looks whole
        with suppress(OSError):
            self._file.close()
        self._writing.unlink(missing_ok=True)

    def _check(self, layer: int, columns: dict[str, np.ndarray]) -> None:
        if layer != self._added or layer >= len(self._layers):
            raise DataError(f"layer: {layer} is not allowed; allowed: all {len(self._layers)} layers in order, next {self._added}")
        facts = self._layers[layer]
        for name, values in columns.items():
            kind = np.dtype(SCHEMA.field(name).type.to_pandas_dtype())
            if values.dtype != kind or values.shape != (facts["numel"],):
                found = f"{values.dtype} of shape {values.shape}"
                raise DataError(f"layer {facts['name']}: {name} of {found} is not allowed; allowed: {kind} of shape ({facts['numel']},)")
            if not np.isfinite(values).all():
                count = values.size - np.count_nonzero(np.isfinite(values))
                raise DataError(f"layer {facts['name']}: {name} has {count} NaN or infinite values; allowed: finite numbers")

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            needed = ROW_BYTES * sum(layer["numel"] for layer in self._layers)
            raise disk_error(self.path, error, needed) from error


@contextmanager
def write_shard(path: Path, metadata: Mapping[str, Any]) -> Iterator[ShardWriter]:
    """Stage one part at the local `path`; after the block `writer.part` is what `commit_dataset` takes.

    `metadata["layers"]` lists the layers with at least `name` and `numel`. Whatever goes wrong inside, no file is left behind.
    Raises DataError when the disk is full.
    """
    writer = ShardWriter(path, path.with_name(f".{path.name}.writing"), metadata)
    try:
        yield writer
        writer.finish()
    finally:
        writer.discard()


def plain_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as JSON gives it back: tuples become lists. Raises DataError for NaN and infinities."""
    try:
        return json.loads(dump_json(metadata))
    except ValueError as error:
        raise DataError(f"metadata: {error}; allowed: finite numbers") from error
