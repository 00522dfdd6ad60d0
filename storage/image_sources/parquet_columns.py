"""Which column of a Parquet file holds the images and which the labels, and what the labels say.

Images: a struct with `bytes` (the encoded file), as the Hub has them, or plain binary. Labels: whole numbers, true or false, or text, each
also dictionary-encoded.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from autosparse.models.errors import DataError, not_allowed
from autosparse.storage.image_sources.source import NO_LABEL, DataFields
from autosparse.storage.plain_json import load_json
from autosparse.storage.store import Store

IMAGE_COLUMNS = ("img", "image")  # the first of them that is there
LABEL_COLUMN, OBVIOUS = "label", ("labels", "fine_label", "class", "target")
BATCH_ROWS = 1000
HASHED_BYTES = 8 * 2**20
MOST_CLASSES = 1_000_000
MISSING = {None, -1}
SHOWN = 20  # classes in a message


@dataclass(frozen=True)
class Shard:
    """One Parquet file of a split: where it is, its content's sha256, its columns, and the labels of its rows as they stand there."""

    key: str
    digest: str
    image: str
    label: str
    labels: pa.Array  # int64, bool or text
    class_names: tuple[str, ...] | None  # of the schema's metadata


def open_shard(store: Store, key: str, data: DataFields) -> Shard:
    """Look through a file without its images. Raises DataError, which names it."""
    name, source = store.uri(key), open_bytes(store, key)
    digest = hashlib.sha256()
    while piece := source.read(HASHED_BYTES):
        digest.update(piece)
    source.seek(0)
    file = open_file(name, source)
    if not file.metadata.num_rows:
        raise DataError(f"{name}: no rows")
    image, label = _image_column(name, file, data.image), _label_column(name, file, data)
    batches = [batch.column(0) for batch in batches_of(name, file, label)]
    return Shard(key, digest.hexdigest(), image, label, _plain(name, label, batches), _class_names(file, label))


def open_bytes(store: Store, key: str) -> pa.NativeFile:
    """A file of this machine as it lies; one of S3 as a whole, because its client retries reads of whole objects."""
    return store.open(key) if store.local_path(key) is not None else pa.BufferReader(store.read(key))


def open_file(name: str, source: pa.NativeFile) -> pq.ParquetFile:
    """Raises DataError for what is no Parquet file."""
    try:
        return pq.ParquetFile(source, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise _corrupt(name, error) from error


def batches_of(name: str, file: pq.ParquetFile, column: str, groups: list[int] | None = None) -> Iterator[pa.RecordBatch]:
    """One column in pieces, of all row groups or of some."""
    try:
        yield from file.iter_batches(batch_size=BATCH_ROWS, columns=[column], row_groups=groups)
    except (pa.ArrowException, OSError) as error:
        raise _corrupt(name, error) from error


def images_of(name: str, file: pq.ParquetFile, shard: Shard, groups: list[int]) -> Iterator[pa.Array]:
    """The encoded images of some row groups, in pieces."""
    struct = pa.types.is_struct(file.schema_arrow.field(shard.image).type)
    for batch in batches_of(name, file, f"{shard.image}.bytes" if struct else shard.image, groups):
        yield batch.column(0).field("bytes") if struct else batch.column(0)


def numbered(shards: list[Shard], store: Store) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels of a training split as numbers, int64 (N,), and the names of its classes: those of text sorted."""
    if pa.types.is_string(kind := _kind(shards, store)):
        classes = tuple(sorted({name for shard in shards for name in shard.labels.unique().to_pylist()} - {None}))
        return numbers(shards, classes, store), classes
    labels = numbers(shards, (), store)
    if pa.types.is_boolean(kind):
        return labels, ("False", "True")
    if named := next((shard.class_names for shard in shards if shard.class_names), None):
        return labels, named
    largest = int(labels.max(initial=0))
    if largest >= MOST_CLASSES:
        place = f"{store.uri(shards[0].key)}: column {shards[0].label}"
        raise DataError(f"{place}: label {largest} is not allowed; allowed: 0 to {MOST_CLASSES - 1}")
    return labels, tuple(map(str, range(1 + largest)))


def numbers(shards: list[Shard], classes: tuple[str, ...], store: Store, *, train: list[Shard] | None = None) -> np.ndarray:
    """Labels as numbers, int64 (N,), NO_LABEL where there is none. `classes` are those of text; the type must be that of `train`."""
    _kind([*(train or []), *shards], store)
    found = [_text_numbers(shard, classes, store) if pa.types.is_string(shard.labels.type) else shard.labels for shard in shards]
    return np.concatenate([labels.cast(pa.int64()).fill_null(NO_LABEL).to_numpy() for labels in found])


def unlabelled(shards: list[Shard]) -> bool:
    """Whether no row has a label: null, or -1 as the Hub has it."""
    return all(set(shard.labels.unique().to_pylist()) <= MISSING for shard in shards)


def _text_numbers(shard: Shard, classes: tuple[str, ...], store: Store) -> pa.Array:
    numbers = {name: number for number, name in enumerate(classes)} | {None: None}
    names = shard.labels.dictionary_encode()
    strange = [name for name in names.dictionary.to_pylist() if name not in numbers]
    if strange:
        row = shard.labels.index(strange[0]).as_py()
        allowed = f"{', '.join(classes[:SHOWN])}{' and so on' if len(classes) > SHOWN else ''}"
        raise DataError(f"{store.uri(shard.key)} row {row}: label {strange[0]!r} is no class of train; allowed: {allowed}")
    return pa.array([numbers[name] for name in names.dictionary.to_pylist()], pa.int64()).take(names.indices)


def _kind(shards: list[Shard], store: Store) -> pa.DataType:
    kinds = {shard.labels.type: shard for shard in shards if shard.labels.null_count < len(shard.labels)}
    if len(kinds) > 1:
        shown = ", ".join(f"{kind} in {store.uri(shard.key)}" for kind, shard in kinds.items())
        raise DataError(f"data.label: labels are {shown}; allowed: one type")
    return next(iter(kinds), pa.int64())


def _plain(name: str, column: str, batches: list[pa.Array]) -> pa.Array:
    """As int64, bool or string."""
    whole = pa.chunked_array(batches)
    if pa.types.is_dictionary(whole.type):
        whole = whole.cast(whole.type.value_type)
    kind = pa.bool_() if pa.types.is_boolean(whole.type) else pa.int64() if pa.types.is_integer(whole.type) else pa.string()
    try:
        return whole.cast(kind).combine_chunks()
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{name}: column {column} holds no labels ({' '.join(str(error).split())}); allowed: text or whole numbers below {MOST_CLASSES}"
        ) from error


def _image_column(name: str, file: pq.ParquetFile, asked: str | None) -> str:
    kinds = {field.name: field.type for field in file.schema_arrow}
    structs = [column for column, kind in kinds.items() if _is_image_struct(kind)]
    plain = [column for column, kind in kinds.items() if _is_binary(kind)]
    return _chosen(
        name, file, "image", asked, [*structs, *plain], [one for group in (structs, plain) for one in IMAGE_COLUMNS if one in group]
    )


def _label_column(name: str, file: pq.ParquetFile, data: DataFields) -> str:
    usable = [field.name for field in file.schema_arrow if _is_label(field.type)]
    telling = [column for column in usable if column in OBVIOUS or column.endswith(("label", "labels")) or _class_names(file, column)]
    obvious = [LABEL_COLUMN] if LABEL_COLUMN in usable else telling if len(telling) == 1 and telling[0] in OBVIOUS else []
    return _chosen(name, file, "label", data.label, telling if data.label is None and telling else usable, obvious)


def _chosen(name: str, file: pq.ParquetFile, field: str, asked: str | None, candidates: list[str], obvious: list[str]) -> str:
    """The column that `data.image` or `data.label` names; without a name an obvious one, or the only one with bytes.

    Raises SpecError with the candidates, DataError where there is none.
    """
    if asked in candidates:
        return str(asked)
    if asked is None and (obvious or (field == "image" and len(candidates) == 1)):
        return [*obvious, *candidates][0]
    if candidates:
        raise not_allowed(f"data.{field}", asked, f"{', '.join(candidates)}, which are columns of {name}")
    shown = ", ".join(f"{column.name}: {column.type}" for column in file.schema_arrow)
    allowed = "a struct with bytes, or binary" if field == "image" else "whole numbers, true or false, or text"
    raise DataError(f"{name}: none of the columns {shown} holds {field}s; allowed: {allowed}")


def _class_names(file: pq.ParquetFile, column: str) -> tuple[str, ...] | None:
    try:
        described = load_json((file.schema_arrow.metadata or {})[b"huggingface"])
        return tuple(map(str, described["info"]["features"][column]["names"])) or None
    except (KeyError, ValueError, TypeError):
        return None


def _is_image_struct(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and any(field.name == "bytes" and _is_binary(field.type) for field in kind)


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_label(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_string, pa.types.is_large_string, pa.types.is_null)
    return any(test(kind) for test in tests)


def _corrupt(name: str, error: Exception) -> DataError:
    return DataError(f"{name}: not a complete Parquet file ({' '.join(str(error).split())})")
