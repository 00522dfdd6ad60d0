"""The feature data set: exact round trip, nothing half-written, and no file that differs from its manifest."""

import dataclasses
import json
import resource
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autosparse.models.errors import ConflictError, DataError, SpecError
from autosparse.storage import feature_shards
from autosparse.storage.dataset_manifest import MANIFEST, Manifest, StoredPart
from autosparse.storage.feature_table import DatasetRef, Part, commit_dataset, open_dataset, write_shard
from autosparse.storage.open_store import open_store
from autosparse.storage.store import Store

LAYERS = [{"name": "conv", "numel": 5, "shape": (5, 1, 1, 1)}, {"name": "fc", "numel": 3, "shape": (3, 1)}]
METADATA = {"source": "resnet8", "seed": 7, "rounds": 3, "features_version": 1, "layers": LAYERS}
CONV = ([0.5, -1.0, 2.0, 0.0, 3.5], [1e-3, -2e-3, 0.0, 4e-3, 1e-30], [0, 1, 2, 3, 3], [31, 0, 7, 8, 30])
FC = ([9.0, 8.0, 7.0], [0.1, 0.2, 0.3], [1, 0, 2], [5, 31, 6])


def arrays(weights: list[float], gradients: list[float], *labels: list[int]) -> tuple[np.ndarray, ...]:
    return np.array(weights, np.float32), np.array(gradients, np.float32), *(np.array(label, np.uint8) for label in labels)


def write(path: Path, metadata: dict[str, Any], layers: Iterable[tuple[int, Any]]) -> Part:
    with write_shard(path, metadata) as writer:
        for layer, columns in layers:
            writer.add(layer, *columns)
    return writer.part


def stage(folder: Path, name: str = "staged.parquet", **changes: Any) -> Part:
    return write(folder / name, METADATA | changes, [(0, arrays(*CONV)), (1, arrays(*FC))])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "root"))


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    (tmp_path / "staging").mkdir()
    return tmp_path / "staging"


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_shards, "ROW_GROUP_ROWS", 4)


@pytest.fixture
def committed(store: Store, staging: Path, small_groups: None) -> DatasetRef:
    return commit_dataset(store, "features", [stage(staging), stage(staging, "b.parquet", seed=8)], {"rounds": 3})


def test_rows_come_back_exactly_and_in_order(committed: DatasetRef):
    dataset = open_dataset(committed.uri)
    batches = list(dataset.batches(1))
    assert [batch["position"].tolist() for batch in batches] == [[0, 1, 2, 3], [4], [0, 1, 2]]
    rows = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    assert {name: values.dtype.name for name, values in rows.items()} == {
        "layer": "uint16",
        "position": "uint32",
        "weight": "float32",
        "gradient": "float32",
        "rounds_survived": "uint8",
        "growth": "uint8",
    }
    assert rows["layer"].tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    for index, name in enumerate(("weight", "gradient", "rounds_survived", "growth")):
        expected = np.concatenate([arrays(*CONV)[index], arrays(*FC)[index]])
        assert rows[name].tobytes() == expected.tobytes()


def test_the_reference_and_the_metadata(committed: DatasetRef, store: Store):
    dataset = open_dataset(committed.uri)
    assert dataclasses.asdict(committed) == {"uri": f"{store.root}/features/{dataset.digest}", "digest": dataset.digest, "rows": 16}
    assert (len(dataset.digest), dataset.rows, dataset.uri, dataset.metadata) == (32, 16, committed.uri, {"rounds": 3})
    assert [(part.rows, part.row_groups, part.metadata["seed"]) for part in dataset.parts] == [(8, 3, 7), (8, 3, 8)]
    assert dataset.parts[0].metadata["layers"][0] == {"name": "conv", "numel": 5, "shape": [5, 1, 1, 1]}
    names = [MANIFEST, "part-00000.parquet", "part-00001.parquet"]
    assert store.list() == [f"features/{dataset.digest}/{name}" for name in names]


def test_row_groups_in_any_order_columns_as_asked_batches_as_small_as_asked(committed: DatasetRef):
    dataset = open_dataset(committed.uri)
    taken = list(dataset.batches(0, ["weight", "layer"], row_groups=[2, 0], batch_rows=3))
    assert [list(batch) for batch in taken] == [["weight", "layer"]] * 3
    assert [batch["weight"].tolist() for batch in taken] == [[9.0, 8.0, 7.0], [0.5, -1.0, 2.0], [0.0]]
    assert list(dataset.batches(0, row_groups=[])) == []
    taken[0]["weight"][0] = 0.0  # ours to change
    with pytest.raises(SpecError, match="columns: 'wieght' is not known; did you mean 'weight'"):
        next(dataset.batches(0, ["wieght"]))


def test_any_parquet_reader_can_read_a_file(committed: DatasetRef):
    table = pq.read_table(Path(committed.uri, "part-00000.parquet"))
    assert table.column("weight").to_pylist() == [0.5, -1.0, 2.0, 0.0, 3.5, 9.0, 8.0, 7.0]
    assert json.loads(table.schema.metadata[b"autosparse"])["seed"] == 7


def test_layers_without_weights_and_of_one_weight(store: Store, staging: Path):
    layers = [{"name": "a", "numel": 1}, {"name": "b", "numel": 0}, {"name": "c", "numel": 1}]
    columns = [arrays([0.5] * layer["numel"], [1.0] * layer["numel"], [1] * layer["numel"], [2] * layer["numel"]) for layer in layers]
    part = write(staging / "x.parquet", {"layers": layers}, enumerate(columns))
    dataset = open_dataset(commit_dataset(store, "features", [part], {}).uri)
    assert [batch["layer"].tolist() for batch in dataset.batches(0)] == [[0], [2]]


def test_equal_content_gives_an_equal_data_set(store: Store, staging: Path, tmp_path: Path):
    first = commit_dataset(store, "features", [stage(staging)], {"rounds": 3})
    again = commit_dataset(store, "features", [stage(staging)], {"rounds": 3})
    elsewhere = commit_dataset(open_store(str(tmp_path / "other")), "x", [stage(staging)], {"rounds": 3})
    assert first == again and elsewhere.digest == first.digest
    part, other = stage(staging), stage(staging, "other.parquet", seed=8)
    others = [([part], {"rounds": 4}), ([other], {"rounds": 3}), ([part, other], {"rounds": 3}), ([other, part], {"rounds": 3})]
    digests = {commit_dataset(store, "features", parts, metadata).digest for parts, metadata in others}
    assert len(digests | {first.digest}) == 5


def test_committers_of_the_same_content_at_once(store: Store, staging: Path):
    part = stage(staging)
    with ThreadPoolExecutor(4) as pool:
        refs = set(pool.map(lambda _: commit_dataset(store, "features", [part], {}), range(4)))
    assert len(refs) == 1 and open_dataset(refs.pop().uri).rows == 8


def test_golden_digest():
    part = StoredPart(file="part-00000.parquet", size=10, sha256="ab" * 32, rows=8, row_groups=1, metadata={"seed": 7})
    manifest = Manifest(schema={"weight": "float"}, metadata={"rounds": 3}, parts=(part,))
    assert manifest.digest == "c710af9629efe9130263060452d79074"  # sha256sum of the same JSON, written by hand
    assert Manifest.load(manifest.dump(), "here") == manifest


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("column", [0, 1])
def test_nan_and_infinity_are_refused_and_leave_nothing(staging: Path, bad: float, column: int):
    columns = arrays(*FC)
    columns[column][1] = bad
    with pytest.raises(DataError, match=f"^layer fc: {('weight', 'gradient')[column]} has 1 NaN or infinite"):
        write(staging / "x.parquet", METADATA, [(0, arrays(*CONV)), (1, columns)])
    assert list(staging.iterdir()) == []


def test_an_exception_inside_the_writer_leaves_nothing(staging: Path):
    def layers() -> Iterator[tuple[int, Any]]:
        yield 0, arrays(*CONV)
        raise KeyError("layer 1")

    with pytest.raises(KeyError, match="layer 1"):
        write(staging / "x.parquet", METADATA, layers())
    assert list(staging.iterdir()) == []


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([(0, arrays(*CONV))], "1 of 2 layers were added; the next is fc"),
        ([(1, arrays(*FC))], "layer: 1 is not allowed; allowed: all 2 layers in order, next 0"),
        ([(0, arrays(*CONV)), (0, arrays(*CONV))], "layer: 0 is not allowed; allowed: all 2 layers in order, next 1"),
        ([(0, arrays(*CONV)), (1, arrays(*FC)), (2, arrays(*FC))], "layer: 2 is not allowed"),
        ([(0, arrays(*FC))], r"layer conv: weight of float32 of shape \(3,\) is not allowed; allowed: float32 of shape \(5,\)"),
        ([(0, (*arrays(*CONV)[:2], np.array(CONV[2]), arrays(*CONV)[3]))], "layer conv: rounds_survived of int64 of shape"),
    ],
)
def test_layers_must_be_all_there_in_order_and_of_their_size(staging: Path, layers: list[tuple[int, Any]], message: str):
    with pytest.raises(DataError, match=message):
        write(staging / "x.parquet", METADATA, layers)
    assert list(staging.iterdir()) == []


def test_metadata_is_json(staging: Path):
    with pytest.raises(DataError, match="metadata: .*finite"):
        write(staging / "x.parquet", METADATA | {"weight_std": float("nan")}, [])


def test_a_full_disk_is_reported_and_leaves_nothing(staging: Path):
    numel = 200_000
    values = np.random.default_rng(0).standard_normal(numel, dtype=np.float32)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(DataError, match=r"x\.parquet: .*; 1,800,000 bytes needed, [0-9,]+ free$"):
            write(
                staging / "x.parquet",
                {"layers": [{"name": "a", "numel": numel}]},
                [(0, (values, values, *[np.zeros(numel, np.uint8)] * 2))],
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(staging.iterdir()) == []


def test_parts_that_are_not_what_was_staged_are_refused(store: Store, staging: Path):
    part = stage(staging)
    for wrong in (dataclasses.replace(part, rows=7), dataclasses.replace(part, metadata=METADATA | {"seed": 1})):
        with pytest.raises(DataError, match=r"staged\.parquet: not what was staged"):
            commit_dataset(store, "features", [wrong], {})
    pq.write_table(pa.table({"weight": [1.0] * 8}), part.path)
    with pytest.raises(DataError, match=r"staged\.parquet: not what was staged"):
        commit_dataset(store, "features", [part], {})
    part.path.write_bytes(part.path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"staged\.parquet: damaged"):
        commit_dataset(store, "features", [part], {})
    part.path.unlink()
    with pytest.raises(DataError, match=r"staged\.parquet: not found$"):
        commit_dataset(store, "features", [part], {})
    with pytest.raises(DataError, match="0 parts"):
        commit_dataset(store, "features", [], {})
    assert store.list() == []


def test_a_manifest_of_other_content_is_a_conflict_with_both_digests(store: Store, staging: Path):
    mine = commit_dataset(store, "features", [stage(staging)], {"rounds": 3})
    other = commit_dataset(store, "features", [stage(staging)], {"rounds": 4})
    shutil.copy(Path(other.uri, MANIFEST), Path(mine.uri, MANIFEST))
    with pytest.raises(ConflictError, match=rf"{mine.digest}/_manifest\.json: holds data set {other.digest}, not {mine.digest}$"):
        commit_dataset(store, "features", [stage(staging)], {"rounds": 3})


def test_committing_again_mends_a_damaged_file(store: Store, staging: Path):
    ref = commit_dataset(store, "features", [stage(staging)], {})
    Path(ref.uri, "part-00000.parquet").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"part-00000\.parquet: size .*7, not"):
        open_dataset(ref.uri)
    commit_dataset(store, "features", [stage(staging)], {})
    assert open_dataset(ref.uri).rows == 8


@pytest.mark.parametrize("at", [4, 200, -5])
def test_one_flipped_bit_is_found_on_opening(committed: DatasetRef, at: int):
    path = Path(committed.uri, "part-00001.parquet")
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"part-00001\.parquet: sha256 is not that of the manifest "):
        open_dataset(committed.uri)


def test_a_flipped_bit_after_opening_is_found_on_reading(committed: DatasetRef):
    dataset = open_dataset(committed.uri)
    path = Path(committed.uri, "part-00001.parquet")
    data = bytearray(path.read_bytes())
    chunk = dataset._footers[1].row_group(0).column(2)
    data[chunk.data_page_offset + chunk.total_compressed_size - 1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"part-00001\.parquet: damaged .*CRC"):
        list(dataset.batches(1, ["weight"]))


def test_a_truncated_and_a_missing_file_are_named(committed: DatasetRef):
    path = Path(committed.uri, "part-00001.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=rf"part-00001\.parquet: size .*{len(whole) - 1}, not {len(whole)}"):
        open_dataset(committed.uri)
    dataset = open_dataset(committed.uri, verify=False)
    with pytest.raises(DataError, match=r"part-00001\.parquet: damaged"):
        list(dataset.batches(1))
    path.unlink()
    with pytest.raises(DataError, match=r"part-00001\.parquet: not found$"):
        open_dataset(committed.uri)


def test_rows_that_the_manifest_does_not_count_are_an_error_without_verification_too(committed: DatasetRef):
    path = Path(committed.uri, MANIFEST)
    plain = json.loads(path.read_text())
    plain["parts"][0]["rows"] = 9
    path.write_text(json.dumps(plain))
    for verify in (True, False):
        with pytest.raises(DataError, match=r"part-00000\.parquet: number of rows .*8, not 9"):
            list(open_dataset(committed.uri, verify=verify).batches(0))


def test_layer_facts_that_were_changed_in_the_manifest(committed: DatasetRef):
    path = Path(committed.uri, MANIFEST)
    path.write_text(path.read_text().replace('"numel": 5', '"numel": 6', 1))
    with pytest.raises(DataError, match=r"part-00000\.parquet: metadata is not that of the manifest"):
        open_dataset(committed.uri)


def test_readers_follow_the_manifest_only(committed: DatasetRef):
    shutil.copy(Path(committed.uri, "part-00000.parquet"), Path(committed.uri, "part-00002.parquet"))
    assert open_dataset(committed.uri).rows == 16
    path = Path(committed.uri, MANIFEST)
    text = path.read_text()
    for damage, message in (
        (text[:-9], "not a manifest"),
        ("[]", "not a manifest"),
        (text.replace('"rounds": 3', '"rounds": 4', 1), "digest [0-9a-f]{32} is not that of its content"),
        (text.replace('"version": 1', '"version": 2', 1), "manifest version 2 is not allowed; allowed: 1"),
    ):
        path.write_text(damage)
        with pytest.raises(DataError, match=rf"_manifest\.json: {message}"):
            open_dataset(committed.uri)
    path.unlink()
    with pytest.raises(DataError, match=r"_manifest\.json: not found$"):
        open_dataset(committed.uri)


def test_a_data_set_can_be_moved(committed: DatasetRef, tmp_path: Path):
    shutil.move(committed.uri, tmp_path / "moved")
    assert open_dataset(str(tmp_path / "moved")).digest == committed.digest
