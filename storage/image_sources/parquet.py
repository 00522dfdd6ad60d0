"""Images in Parquet files with the Hugging Face column layout, in a local folder or on S3.

Columns: `img` or `image`, a struct of `bytes` (the encoded file) and `path`; `label`, an integer. Class names stand in the
schema metadata under `huggingface`; without them the classes are the numbers up to the largest label.
"""

import hashlib
from collections.abc import Iterator
from itertools import chain, islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from autosparse.models.errors import DataError
from autosparse.storage.addresses import LOCAL, S3, address_kind
from autosparse.storage.image_sources.source import SPLIT_NAMES, Split, decode
from autosparse.storage.open_store import open_store
from autosparse.storage.plain_json import load_json

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMN = "label"
BATCH_ROWS = 1000


class ParquetImages:
    """`path` holds `train.parquet` and `test.parquet`, or shards `train-*.parquet`; the test images may be called `validation`."""

    def __init__(self, path: str | None, download: bool) -> None:
        address_kind("data.path", path, LOCAL, S3)
        self.store = open_store(str(path))

    def key(self, split: str) -> str:
        """sha256 of the split's files in their order, whatever their names."""
        digests = [hashlib.sha256(self.store.read(name)).hexdigest() for name in self._files(split)]
        return f"parquet {' '.join(digests)}"

    def read(self, split: str, limit: int | None) -> Split:
        """Only the shards and rows within `limit` are decoded."""
        encoded: list[tuple[str, bytes | None]] = []
        labels: list[int] = []
        classes: tuple[str, ...] | None = None
        for name in self._files(split):
            missing = None if limit is None else limit - len(labels)
            if missing == 0:
                break
            table = self._table(name)
            classes = classes or table.class_names
            for row, (data, label) in enumerate(table.rows(missing)):
                encoded.append((f"{table.name} row {row}", data))
                labels.append(label)
        return Split(decode(encoded, len(encoded)), np.array(labels, np.int64), classes or self._numbers())

    def _files(self, split: str) -> list[str]:
        names = [name for name in self.store.list() if "/" not in name]
        for word in SPLIT_NAMES[split]:
            found = [name for name in names if name == f"{word}.parquet" or (name.startswith(f"{word}-") and name.endswith(".parquet"))]
            if found:
                return found
        raise DataError(f"data.path: {self.store.root} has no {split}.parquet and no {split}-*.parquet")

    def _numbers(self) -> tuple[str, ...]:
        return tuple(map(str, range(1 + max(self._table(name).largest_label() for name in self._files("train")))))

    def _table(self, name: str) -> "_Table":
        return _Table(self.store.uri(name), self.store.read(name))


class _Table:
    """One Parquet file held in memory; all errors are DataErrors that name it."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        try:
            self.file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise self._corrupt(error) from error
        schema = self.file.schema_arrow
        self.image = next((column for column in IMAGE_COLUMNS if _holds_images(schema, column)), None)
        if self.image is None or LABEL_COLUMN not in schema.names or not pa.types.is_integer(schema.field(LABEL_COLUMN).type):
            shown = ", ".join(f"{field.name}: {field.type}" for field in schema)
            raise DataError(f"{name}: columns {shown}; allowed: img or image (struct of bytes and path) and label (integer)")
        if not self.file.metadata.num_rows:
            raise DataError(f"{name}: no rows")

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """From the schema metadata, None where there are none."""
        try:
            described = load_json((self.file.schema_arrow.metadata or {})[b"huggingface"])
            return tuple(map(str, described["info"]["features"][LABEL_COLUMN]["names"])) or None
        except (KeyError, ValueError, TypeError):
            return None

    def rows(self, limit: int | None) -> Iterator[tuple[bytes | None, int]]:
        """Encoded image and label of the first `limit` rows."""
        pairs = chain.from_iterable(_pairs(batch) for batch in self._batches(f"{self.image}.bytes", LABEL_COLUMN))
        for row, (data, label) in enumerate(islice(pairs, limit)):
            if label is None:
                raise DataError(f"{self.name} row {row}: no label")
            yield data, label

    def largest_label(self) -> int:
        """Over all rows, 0 where no row has a label."""
        return max((label or 0 for batch in self._batches(LABEL_COLUMN) for label in batch.column(0).to_pylist()), default=0)

    def _batches(self, *columns: str) -> Iterator[pa.RecordBatch]:
        try:
            yield from self.file.iter_batches(batch_size=BATCH_ROWS, columns=list(columns))
        except (pa.ArrowException, OSError) as error:
            raise self._corrupt(error) from error

    def _corrupt(self, error: Exception) -> DataError:
        return DataError(f"{self.name}: not a complete Parquet file ({' '.join(str(error).split())})")


def _pairs(batch: pa.RecordBatch) -> Iterator[tuple[bytes | None, int | None]]:
    return zip(batch.column(0).field("bytes").to_pylist(), batch.column(1).to_pylist(), strict=True)


def _holds_images(schema: pa.Schema, column: str) -> bool:
    if column not in schema.names or not pa.types.is_struct(schema.field(column).type):
        return False
    fields = {field.name: field.type for field in schema.field(column).type}
    return "bytes" in fields and (pa.types.is_binary(fields["bytes"]) or pa.types.is_large_binary(fields["bytes"]))
