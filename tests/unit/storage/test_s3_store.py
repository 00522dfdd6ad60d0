"""The store and the feature data set on a real S3 server process, and on servers that are away, busy or strict."""

import pickle
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from autosparse.models.errors import ConflictError, DataError, ServiceError
from autosparse.storage import s3_retries, s3_store
from autosparse.storage.feature_table import Part, commit_dataset, open_dataset, write_shard
from autosparse.storage.open_store import open_store
from autosparse.storage.store import Store
from tests.s3_server import BUCKET, KEY, SECRET, s3_server

pytestmark = pytest.mark.s3


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as (address, _):
        yield address


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def store(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Store:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    return open_store(f"s3://{BUCKET}/{request.node.name}")


@dataclass
class Scripted:
    """An HTTP server that gives its answers one after another, the last one for ever, and keeps what it was asked."""

    answers: list[tuple[int, str]]
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    address: str = ""


@contextmanager
def scripted(*answers: tuple[int, str]) -> Iterator[Scripted]:
    script = Scripted(list(answers))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            script.asked.append((self.command, {name.lower(): value for name, value in self.headers.items()}))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body.encode())

        do_GET = do_PUT = do_HEAD = answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads, http.block_on_close = True, False  # the client keeps its connections open
        script.address = f"http://127.0.0.1:{http.server_address[1]}"
        Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield script
        finally:
            http.shutdown()


def problem(code: str) -> str:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_what_is_written_is_read_listed_and_deleted(store: Store):
    assert not store.exists("a/b") and store.list() == []
    store.write("a/b", b"one")
    store.write("a/b", b"two")
    store.write("a/c/d", b"")
    store.write("ab", b"3")
    assert store.exists("a/b") and not store.exists("a")
    assert store.read("a/b") == b"two"
    assert (store.list(), store.list("a"), store.list("none")) == (["a/b", "a/c/d", "ab"], ["a/b", "a/c/d"], [])
    assert store.uri("a/b") == f"{store.root}/a/b" and store.local_path("a/b") is None
    store.write_json("r.json", {"b": 1.5})
    assert store.read_json("r.json") == {"b": 1.5}
    store.delete("a")
    store.delete("r.json")
    store.delete("none")
    assert store.list() == ["ab"]


def test_it_travels_as_its_root(store: Store):
    store.write("a", b"x")
    pickled = pickle.dumps(store)
    assert pickle.loads(pickled).read("a") == b"x"
    assert SECRET.encode() not in pickled


def test_create_never_overwrites(store: Store):
    store.create("m.json", b"first")
    with pytest.raises(ConflictError, match=r"m\.json: exists already$"):
        store.create("m.json", b"second")
    assert store.read("m.json") == b"first"


def test_create_loses_to_whoever_came_between(monkeypatch: pytest.MonkeyPatch):
    """A server that knows conditional requests decides; the look-up before (HEAD and listing) found nothing."""
    nothing = "<?xml version='1.0'?><ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>"
    for status, code in ((412, "PreconditionFailed"), (409, "ConditionalRequestConflict")):
        with scripted((404, ""), (200, nothing), (status, problem(code)), (200, "theirs")) as script:
            monkeypatch.setenv("AWS_ENDPOINT_URL", script.address)
            with pytest.raises(ConflictError, match="x: exists already$"):
                open_store("s3://bucket/p").create("x", b"mine")
        command, headers = script.asked[2]
        assert (command, headers["if-none-match"]) == ("PUT", "*")


def test_large_files_go_in_parts_and_come_back(store: Store, tmp_path: Path):
    local = tmp_path / "large.bin"
    local.write_bytes(np.random.default_rng(0).bytes(2 * s3_store.PART_BYTES + 1))
    store.upload(local, "large.bin")
    assert store.read("large.bin") == local.read_bytes()
    with store.open("large.bin") as file:
        file.seek(s3_store.PART_BYTES)
        assert file.read(3) == local.read_bytes()[s3_store.PART_BYTES :][:3]


def test_the_file_system_for_ray(store: Store):
    filesystem, base = pickle.loads(pickle.dumps(store.arrow()))
    filesystem.create_dir(f"{base}/training/job", recursive=True)
    with filesystem.open_output_stream(f"{base}/training/job/state.json") as stream:
        stream.write(b"{}")
    assert store.list() == ["training/job/state.json"]
    assert filesystem.get_file_info(f"{base}/training/job").type.name == "Directory"
    filesystem.delete_dir(f"{base}/training/job")
    assert store.list() == []


def test_a_missing_key_or_local_file_is_named(store: Store, tmp_path: Path):
    for method in (store.read, store.open):
        with pytest.raises(DataError, match=f"^{re.escape(store.root)}/no/such: not found$"):
            method("no/such")
    with pytest.raises(DataError, match=r"^/.*/nowhere: not found$"):
        store.upload(tmp_path / "nowhere", "x")


def test_a_missing_bucket_is_named(server: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    away = open_store("s3://no-such-bucket/p")
    for method in (away.read, away.exists, away.list, lambda key: away.write(key, b""), lambda key: away.create(key, b"")):
        with pytest.raises(DataError, match=f"^s3://no-such-bucket/p/x: there is no such bucket at {server}$"):
            method("x")


def test_denied_access_is_one_line_without_credentials(server: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7WRONG00")
    store = open_store("s3://bucket/p")
    for method in (store.read, store.exists, store.list, lambda key: store.write(key, b"")):
        with pytest.raises(DataError, match=rf"^s3://bucket/p/x: access denied by {server} \(\w+\)$"):
            method("x")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(DataError, match=r"access denied by .* \(NoCredentialsError\)$"):
        open_store("s3://bucket/p").read("x")


def test_an_endpoint_that_is_away_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch):
    address = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    start = time.monotonic()
    with pytest.raises(ServiceError, match=rf"^S3: read of s3://bucket/p/a/b at {address} failed after \d+ s of trying \(\w+\)$") as caught:
        open_store("s3://bucket/p").read("a/b")
    assert time.monotonic() - start < 25
    assert KEY not in str(caught.value) and SECRET not in str(caught.value)


def test_the_warning_of_another_try_names_no_address(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    s3_retries._warned.clear()
    monkeypatch.setattr(s3_retries, "UNREACHABLE_S", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ServiceError, match=r"at http://127\.0\.0\.1:\d+ failed"):
        open_store("s3://bucket/p").read("a/b")
    assert "is tried again" in caplog.text
    assert "127.0.0.1" not in caplog.text


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (500, "InternalError")])
def test_a_busy_server_is_waited_for(monkeypatch: pytest.MonkeyPatch, status: int, code: str):
    with scripted((status, problem(code)), (status, problem(code)), (200, "content")) as script:
        monkeypatch.setenv("AWS_ENDPOINT_URL", script.address)
        assert open_store("s3://bucket/p").read("x") == b"content"
    assert script.answers == [(200, "content")] and len(script.asked) > 2


def test_a_server_that_stays_busy_is_a_service_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(s3_retries, "PATIENCE_S", 0)
    with scripted((503, problem("SlowDown"))) as script:
        monkeypatch.setenv("AWS_ENDPOINT_URL", script.address)
        with pytest.raises(ServiceError, match=r"\(SlowDown\)$"):
            open_store("s3://bucket/p").write("x", b"")
    assert len(script.asked) == 2


def test_the_region_is_read_as_aws_names_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    with scripted((200, "content")) as script:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", script.address)
        open_store("s3://bucket/p").read("x")
    assert "/eu-central-1/s3/" in script.asked[0][1]["authorization"]


def stage(path: Path, rows: int = 300_000) -> tuple[np.ndarray, Part]:
    weights = np.random.default_rng(0).standard_normal(rows, dtype=np.float32)
    with write_shard(path, {"seed": 0, "layers": [{"name": "a", "numel": rows}]}) as writer:
        writer.add(0, weights, -weights, np.full(rows, 3, np.uint8), np.full(rows, 31, np.uint8))
    return weights, writer.part


def test_a_data_set_round_trip(store: Store, tmp_path: Path):
    weights, part = stage(tmp_path / "x.parquet")
    ref = commit_dataset(store, "features", [part], {"rounds": 3})
    assert commit_dataset(store, "features", [part], {"rounds": 3}) == ref
    assert ref.uri == f"{store.root}/features/{ref.digest}"
    dataset = open_dataset(ref.uri)
    assert np.array_equal(np.concatenate([batch["weight"] for batch in dataset.batches(0, ["weight"])]), weights)
    assert next(dataset.batches(0, ["weight"], row_groups=[2]))["weight"][0] == weights[2 * 131_072]
    key = f"features/{ref.digest}/part-00000.parquet"
    damaged = bytearray(store.read(key))
    damaged[1000] ^= 1
    store.write(key, bytes(damaged))
    with pytest.raises(DataError, match=r"part-00000\.parquet: sha256 is not that of the manifest"):
        open_dataset(ref.uri)
    store.delete(key)
    with pytest.raises(DataError, match=r"part-00000\.parquet: not found$"):
        open_dataset(ref.uri)


def test_a_server_that_dies_while_a_data_set_is_read_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(s3_retries, "PATIENCE_S", 0)
    monkeypatch.setattr(s3_retries, "UNREACHABLE_S", 0)
    with s3_server(tmp_path / "server") as (address, process):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        ref = commit_dataset(open_store("s3://bucket/p"), "features", [stage(tmp_path / "x.parquet")[1]], {})
        batches = open_dataset(ref.uri).batches(0)
        next(batches)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with pytest.raises(ServiceError, match=r"read of .*part-00000\.parquet at .* failed"):
            list(batches)
