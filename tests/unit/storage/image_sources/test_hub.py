"""Sets of the Hub by name, against a small server that answers as the Hub does."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from autosparse.models.errors import SpecError
from tests.image_sets import DARK, RED, encoded, load, write_parquet

COMMITS = {"main": "a" * 40, "refs/convert/parquet": "b" * 40}
LOAD = """
import sys
from autosparse.models.errors import AutosparseError
from autosparse.models.specs.run_specs import DataSpec
from autosparse.storage.image_datasets import load_images
try:
    found = load_images(DataSpec(name=sys.argv[1]), None)
    print(found.train_labels.tolist(), found.test_labels.tolist(), found.classes)
except AutosparseError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Hub with two data sets: `me/one`, `me/several` with two configurations, and `me/converted`, on its branch alone."""
    root = tmp_path_factory.mktemp("hub")
    pair = [encoded(RED), encoded(DARK)]
    for half, labels in (("train", [0, 1]), ("test", [1, 0])):
        write_parquet(root / f"me/one/main/data/{half}-00000-of-00001.parquet", pair, labels, names=["cat", "dog"])
        for name in ("small", "large"):
            write_parquet(root / f"me/several/main/{name}/{half}-00000-of-00001.parquet", pair, labels, names=["cat", name])
        write_parquet(root / f"me/converted/refs/convert/parquet/default/{half}/0000.parquet", pair, labels)
    (root / "me/one/main/README.md").write_text("# one")
    (root / "me/converted/main").mkdir()
    (root / "me/converted/main/load.py").write_text("")

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0].replace("%2F", "/").removeprefix("/api").removeprefix("/datasets/")
            kind = next((one for one in ("/resolve/", "/tree/", "/revision/") if one in path), "/info/")
            repository, _, rest = path.partition(kind)
            revisions = {name: root / repository / name for name in COMMITS if (root / repository / name).is_dir()}
            asked = [name for name in revisions if f"{rest or 'main'}/".startswith((f"{name}/", f"{COMMITS[name]}/"))]
            if not asked:
                return self.send(None, "", body=body, why="RevisionNotFound" if revisions else "RepoNotFound")
            folder, commit = revisions[asked[0]], COMMITS[asked[0]]
            if kind == "/resolve/":
                return self.send((folder / rest.removeprefix(f"{commit}/")).read_bytes(), commit, body=body)
            files = {str(one.relative_to(folder)): one.stat().st_size for one in folder.rglob("*") if one.is_file()}
            tree = [{"type": "file", "path": name, "size": size, "oid": "0"} for name, size in files.items()]
            about = {"id": repository, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
            return self.send(json.dumps(tree if kind == "/tree/" else about).encode(), commit, body=body)

        def send(self, data: bytes | None, commit: str, *, body: bool, why: str = "") -> None:
            self.send_response(404 if data is None else 200)
            for name, value in (("X-Error-Code", why), ("X-Repo-Commit", commit), ("ETag", hashlib.sha1(data or b"").hexdigest())):
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            if body:
                self.wfile.write(data or b"")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def told(name: str, home: Path, **environment: str) -> str:
    """What loading prints in a process of its own: huggingface_hub reads its environment once."""
    settings = {"HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_ETAG_TIMEOUT": "1"}
    command = [sys.executable, "-W", "ignore", "-c", LOAD, name]
    done = subprocess.run(command, env=os.environ | settings | environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_set_is_downloaded_by_its_name_and_read_from_the_cache_without_the_hub(hub: str, tmp_path: Path):
    assert told("hf:me/one", tmp_path, HF_ENDPOINT=hub) == "[0, 1] [1, 0] ('cat', 'dog')"
    assert told("hf:me/one", tmp_path, HF_HUB_OFFLINE="1") == "[0, 1] [1, 0] ('cat', 'dog')"
    assert not list(tmp_path.rglob("README.md")), "only what is read"


def test_one_of_several_configurations_is_named_after_an_at(hub: str, tmp_path: Path):
    said = told("hf:me/several", tmp_path, HF_ENDPOINT=hub)
    assert said == "DataError data.name: hf:me/several has several configurations; allowed: one of hf:me/several@large, hf:me/several@small"
    assert told("hf:me/several@small", tmp_path, HF_ENDPOINT=hub) == "[0, 1] [1, 0] ('cat', 'small')"
    assert "has no Parquet files on the Hub" in told("hf:me/several@none", tmp_path, HF_ENDPOINT=hub)


def test_a_set_without_parquet_files_is_read_as_the_hub_converted_it(hub: str, tmp_path: Path):
    assert told("hf:me/converted", tmp_path, HF_ENDPOINT=hub) == "[0, 1] [1, 0] ('0', '1')"


def test_an_unknown_set_and_a_machine_without_the_hub_get_one_line(hub: str, tmp_path: Path):
    said = told("hf:me/none", tmp_path, HF_ENDPOINT=hub)
    assert said == "DataError data.name: hf:me/none is no data set of the Hub, or a private one; allowed: one that is, or HF_TOKEN"
    said = told("hf:me/one", tmp_path, HF_HUB_OFFLINE="1")
    assert said.startswith("DataError data.name: hf:me/one is not in the cache of the Hub and cannot be downloaded (")
    assert "\n" not in said
    assert said.endswith("; allowed: a machine that reaches the Hub, or data.name parquet with the files in data.path")


def test_without_the_package_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(Exception, match=r"^data.name: hf:me/one needs huggingface_hub; allowed: pip install 'autosparse\[hf\]'$"):
        load("hf:me/one", None)


@pytest.mark.parametrize("name", ["hf:", "hf:a/b/c", "hf:a b", "hf:a/b@", "hf:../x", "hf:a/b@../c", "hf:/a"])
def test_a_name_that_cannot_be_is_refused_before_anything_is_asked(name: str):
    with pytest.raises(SpecError, match=r"^data.name: .* is not allowed; allowed: hf:owner/name or hf:owner/name@configuration$"):
        load(name, None)


def test_a_set_of_the_hub_takes_no_path(tmp_path: Path):
    with pytest.raises(SpecError, match=r"^data.path: .* is not allowed; allowed: none for hf:me/one, which is downloaded$"):
        load("hf:me/one", tmp_path)
