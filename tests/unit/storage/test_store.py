"""The local store: whole writes, create-only, keys that cannot leave the root, errors in one line."""

import pickle
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyarrow import fs

from autosparse.models.errors import ConflictError, DataError, SpecError
from autosparse.storage.open_store import open_store
from autosparse.storage.store import Store, dump_json


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "root"))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def files(store: Store) -> list[str]:
    return sorted(path.relative_to(store.root).as_posix() for path in Path(store.root).rglob("*") if path.is_file())


def test_what_is_written_is_read(store: Store):
    assert not store.exists("a/b.bin")
    store.write("a/b.bin", b"one")
    store.write("a/b.bin", b"two")
    assert store.exists("a/b.bin") and not store.exists("a")
    assert store.read("a/b.bin") == b"two"
    assert store.uri("a/b.bin") == f"{store.root}/a/b.bin"
    assert store.local_path("a/b.bin") == Path(store.root, "a/b.bin")
    with store.open("a/b.bin") as file:
        file.seek(1)
        assert file.read(5) == b"wo"
    assert files(store) == ["a/b.bin"]  # nothing temporary stays


def test_a_relative_root_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert open_store("here").root == str(tmp_path / "here")


def test_it_travels_as_its_root(store: Store):
    store.write("a", b"x")
    there = pickle.loads(pickle.dumps(store))
    assert there == store and there.read("a") == b"x"


def test_create_never_overwrites(store: Store):
    store.create("m.json", b"first")
    with pytest.raises(ConflictError, match=r"m\.json: exists already$"):
        store.create("m.json", b"second")
    assert store.read("m.json") == b"first" and files(store) == ["m.json"]


def test_of_many_creators_one_wins(store: Store):
    def attempt(number: int) -> bool:
        try:
            store.create("race/m.json", str(number).encode())
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(attempt, range(32)))
    assert sum(wins) == 1
    assert store.read("race/m.json") == str(wins.index(True)).encode()


def test_listing_is_sorted_recursive_and_fresh(store: Store):
    for key in ("b/2", "b/10", "b/c/1", "bc", "a"):
        store.write(key, b"")
    Path(store.root, "b", ".hidden").write_bytes(b"")
    assert store.list() == ["a", "b/10", "b/2", "b/c/1", "bc"]
    assert store.list("b") == ["b/10", "b/2", "b/c/1"]
    assert store.list("nothing/here") == []
    Path(store.root, "b", "3").write_bytes(b"")
    assert store.list("b") == ["b/10", "b/2", "b/3", "b/c/1"]


def test_delete_takes_a_key_or_a_folder(store: Store):
    for key in ("a/1", "a/b/2", "ab", "c"):
        store.write(key, b"")
    store.delete("a")
    store.delete("c")
    store.delete("never/there")
    assert store.list() == ["ab"]


def test_files_go_in_and_out(store: Store, tmp_path: Path):
    local = tmp_path / "local.bin"
    local.write_bytes(b"x" * 3_000_000)
    store.upload(local, "deep/in.bin")
    assert store.read("deep/in.bin") == b"x" * 3_000_000
    with pytest.raises(DataError, match=r"nowhere\.bin: not found$"):
        store.upload(tmp_path / "nowhere.bin", "x")


def test_a_missing_key_is_named(store: Store):
    for method in (store.read, store.read_json, store.open):
        with pytest.raises(DataError, match=r"^/.*root/no/such: not found$"):
            method("no/such")


@pytest.mark.parametrize(
    "key", ["", "/etc/x", "../x", "a/../b", "a//b", "a/", ".", "a/.hidden", "a b", "ä", "a\n", "a\\b", "a:b", "s3://b/c"]
)
def test_keys_that_are_none(store: Store, key: str):
    for method in (store.read, store.exists, store.uri, store.delete, store.local_path, lambda key: store.write(key, b"")):
        with pytest.raises(SpecError, match="^key: "):
            method(key)
    assert not Path(store.root).exists()


def test_keys_that_are_ours(store: Store):
    for key in ("_manifest.json", "runs/my-run/irp/resnet8-w32-s2-seed0/round-000/mask.safetensors", "density-1e-05", "a=b/c.d"):
        store.write(key, b"")
    assert len(store.list()) == 4


@pytest.mark.parametrize(
    "root", ["", "gs://bucket/x", "http://host/x", "s3://", "s3://Bucket", "s3://ab", "s3://bucket/../x", "s3://bucket//x"]
)
def test_roots_that_are_none(root: str):
    with pytest.raises(SpecError, match="^(storage|key): "):
        open_store(root)


def test_json_has_sorted_keys_and_no_nan(store: Store):
    store.write_json("r.json", {"b": 1, "a": [0.1, None]})
    assert store.read("r.json") == b'{\n "a": [\n  0.1,\n  null\n ],\n "b": 1\n}\n'
    assert store.read_json("r.json") == {"a": [0.1, None], "b": 1}
    assert dump_json({"b": 1, "a": 2}) == dump_json({"a": 2, "b": 1})
    for value in (float("nan"), float("inf")):
        with pytest.raises(DataError, match=r"r\.json: .*finite"):
            store.write_json("r.json", {"loss": value})
    store.write("r.json", b'{"cut": ')
    with pytest.raises(DataError, match=r"r\.json: not JSON"):
        store.read_json("r.json")


def test_a_full_disk_is_reported_and_leaves_what_was_there(store: Store):
    store.write("a", b"old")
    with largest_file(1000), pytest.raises(DataError, match=r"root/a: .*; 5,000 bytes needed, [0-9,]+ free$"):
        store.write("a", b"x" * 5000)
    assert store.read("a") == b"old" and files(store) == ["a"]


def test_a_file_where_a_folder_is_needed_is_an_error_in_one_line(store: Store):
    store.write("a", b"")
    with pytest.raises(DataError, match="^[^\n]*root/a/b: [^\n]+$"):
        store.write("a/b", b"")


def test_arrow_sees_the_same_files(store: Store):
    store.write("a/b", b"x")
    filesystem, base = store.arrow()
    assert isinstance(filesystem, fs.LocalFileSystem)
    with filesystem.open_input_stream(f"{base}/a/b") as stream:
        assert stream.read() == b"x"
