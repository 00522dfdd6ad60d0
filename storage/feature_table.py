"""The feature data set: Parquet files, one per source network and seed, and one manifest over them.

Files are staged locally and checked before they go to `<prefix>/<digest>/`. The manifest follows last and is never
overwritten, so a data set is there whole or not at all; readers look at nothing that it does not list.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from autosparse.models.errors import ConflictError, DataError, unknown_name
from autosparse.storage.damage import damaged
from autosparse.storage.dataset_manifest import MANIFEST, Manifest, StoredPart
from autosparse.storage.disk import disk_error
from autosparse.storage.feature_shards import COLUMNS, METADATA_KEY, SCHEMA, Part, ShardWriter, plain_metadata, write_shard
from autosparse.storage.open_store import open_store
from autosparse.storage.plain_json import load_json
from autosparse.storage.store import Store

__all__ = ["COLUMNS", "DatasetRef", "FeatureDataset", "Part", "ShardWriter", "commit_dataset", "open_dataset", "write_shard"]

BATCH_ROWS = 65_536
CHUNK_BYTES = 4 * 2**20


@dataclass(frozen=True, kw_only=True)
class DatasetRef:
    """A committed data set."""

    uri: str
    digest: str
    rows: int


def commit_dataset(store: Store, prefix: str, parts: Sequence[Part], metadata: Mapping[str, Any]) -> DatasetRef:
    """Check the staged parts and publish them as one data set below `prefix`.

    The same content once more is accepted. Raises DataError for a part that is not what was staged, ConflictError
    where the manifest of that digest says something else.
    """
    if not parts:
        raise DataError("data set: 0 parts are not allowed; allowed: at least one")
    stored = tuple(_staged(part, f"part-{number:05d}.parquet") for number, part in enumerate(parts))
    columns = {column.name: str(column.type) for column in SCHEMA}
    manifest = Manifest(schema=columns, metadata=plain_metadata(metadata), parts=stored)
    home = f"{prefix}/{manifest.digest}"
    for part, there in zip(parts, stored, strict=True):  # also where they are already, for one of them may be damaged
        store.upload(part.path, f"{home}/{there.file}")
    publish(store, f"{home}/{MANIFEST}", manifest)
    return DatasetRef(uri=store.uri(home), digest=manifest.digest, rows=manifest.rows)


def open_dataset(uri: str, *, verify: bool = True) -> "FeatureDataset":
    """The data set at `uri`, the local folder or s3:// address in its `DatasetRef`.

    `verify` reads every file once and compares it with the manifest. Raises DataError naming the file that is missing, cut
    short or changed, ServiceError when S3 cannot be reached.
    """
    store = open_store(uri)
    dataset = FeatureDataset(store=store, manifest=Manifest.load(store.read(MANIFEST), store.uri(MANIFEST)))
    for number in range(len(dataset.parts)) if verify else ():
        dataset.verify(number)
    return dataset


@dataclass(frozen=True, kw_only=True)
class FeatureDataset:
    """A committed data set, read in bounded memory."""

    store: Store
    manifest: Manifest
    _footers: dict[int, pq.FileMetaData] = field(default_factory=dict, repr=False, compare=False)

    @property
    def uri(self) -> str:
        """Where it is."""
        return self.store.root

    @property
    def digest(self) -> str:
        """What it is."""
        return self.manifest.digest

    @property
    def rows(self) -> int:
        """Weights in all parts."""
        return self.manifest.rows

    @property
    def metadata(self) -> dict[str, Any]:
        """What was said of the data set as a whole."""
        return self.manifest.metadata

    @property
    def parts(self) -> tuple[StoredPart, ...]:
        """The files, each with the metadata of its source."""
        return self.manifest.parts

    def batches(
        self, part: int, columns: Sequence[str] = COLUMNS, *, row_groups: Sequence[int] | None = None, batch_rows: int = BATCH_ROWS
    ) -> Iterator[dict[str, np.ndarray]]:
        """The rows of one part as arrays by column, at most `batch_rows` at a time and all of one layer.

        In canonical order, or those row groups only, in the order given. Raises DataError for a damaged page.
        """
        for name in columns:
            if name not in COLUMNS:
                raise unknown_name("columns", name, COLUMNS)
        with self._open(part) as file:
            for group in range(self.parts[part].row_groups) if row_groups is None else row_groups:
                with self._reading(part):
                    table = file.read_row_group(group, columns=list(columns))
                for batch in table.to_batches(max_chunksize=batch_rows):
                    yield {name: batch.column(name).to_numpy().copy() for name in columns}  # copies, for torch wants to write

    def verify(self, part: int) -> None:
        """Compare size, SHA-256, rows and metadata of one file with the manifest. Raises DataError naming the file."""
        there = self.parts[part]
        with self._reading(part), self.store.open(there.file) as file:
            size, sha256 = _fingerprint(file)
        self._compare(part, "size", size, there.size)
        self._compare(part, "sha256", sha256, there.sha256)
        with self._open(part) as file:
            self._compare(part, "metadata", _metadata(file.schema_arrow), there.metadata)

    @contextmanager
    def _open(self, part: int) -> Iterator[pq.ParquetFile]:
        remote = self.store.local_path(MANIFEST) is None
        with self.store.open(self.parts[part].file) as source:
            with self._reading(part):
                file = pq.ParquetFile(source, metadata=self._footers.get(part), pre_buffer=remote, page_checksum_verification=True)
            if part not in self._footers:
                self._compare(part, "number of rows", file.metadata.num_rows, self.parts[part].rows)
                self._compare(part, "number of row groups", file.num_row_groups, self.parts[part].row_groups)
                self._compare(part, "schema", file.schema_arrow.remove_metadata(), SCHEMA)
                self._footers[part] = file.metadata
            yield file

    def _compare(self, part: int, what: str, found: Any, expected: Any) -> None:
        if found != expected:
            shown = f" ({found}, not {expected})" if isinstance(found, int | str) else ""
            uri = self.store.uri(self.parts[part].file)
            raise damaged(uri, f"{what} is not that of the manifest{shown}")

    @contextmanager
    def _reading(self, part: int) -> Iterator[None]:
        file = self.parts[part].file
        with self.store.reporting("read", file):
            try:
                yield
            except (pa.ArrowException, OSError) as error:
                if not _is_damage(error):
                    raise
                raise _damaged(self.store.uri(file), error) from error


def _staged(part: Part, file: str) -> StoredPart:
    try:
        with pa.OSFile(str(part.path), "rb") as staged:
            size, sha256 = _fingerprint(staged)
        with pq.ParquetFile(part.path) as parquet:
            footer, schema = parquet.metadata, parquet.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise (_damaged(part.path, error) if _is_damage(error) else disk_error(part.path, error)) from error
    if footer.num_rows != part.rows or not schema.equals(SCHEMA) or _metadata(schema) != part.metadata:
        raise DataError(f"{part.path}: not what was staged ({footer.num_rows} rows, staged {part.rows})")
    return StoredPart(file=file, size=size, sha256=sha256, rows=part.rows, row_groups=footer.num_row_groups, metadata=part.metadata)


def publish(store: Store, key: str, manifest: Manifest) -> None:
    """Create the manifest under `key`. Raises ConflictError, with both digests, where one of other content came first."""
    try:
        store.create(key, manifest.dump())
    except ConflictError:
        there = store.read(key)
        if there != manifest.dump():
            other = Manifest.load(there, store.uri(key)).digest
            raise ConflictError(f"{store.uri(key)}: holds data set {other}, not {manifest.digest}") from None


def _fingerprint(file: Any) -> tuple[int, str]:
    """Size and SHA-256 of an open binary file, in bounded memory."""
    size, digest = 0, hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        size += len(chunk)
        digest.update(chunk)
    return size, digest.hexdigest()


def _metadata(schema: pa.Schema) -> dict[str, Any]:
    try:
        return load_json((schema.metadata or {}).get(METADATA_KEY, b"{}"))
    except ValueError:  # then it is not what a manifest says either
        return {}


def _is_damage(error: Exception) -> bool:
    """Whether pyarrow complains of the content rather than of the disk or the network: those errors have a number."""
    return isinstance(error, pa.ArrowException) or (type(error) is OSError and error.errno is None)


def _damaged(where: str | Path, error: Exception) -> DataError:
    return damaged(where, f"damaged ({' '.join(str(error).split())})")
