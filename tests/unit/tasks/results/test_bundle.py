"""A results bundle: complete, without anything of the machine, and every change in it is found."""

import hashlib
import io
import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autosparse.models.errors import DataError, SpecError
from autosparse.storage.store import Store
from autosparse.tasks.results.bundle import bundle, differences_in, without_machine

Typed = Callable[..., subprocess.CompletedProcess[str]]
ARM = "runs/made/fanout/lenet300-100/seed10/snip/density-0.1/report.json"


@pytest.fixture(scope="module")
def store(made: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Store:
    spec = made.spec(name="parquet", path="/home/somebody/secret/cifar")
    return made.run(tmp_path_factory.mktemp("bundle"), spec, reason="https://me:hunter2@host/x?token=abc gave up, see /var/log/y.")


@pytest.fixture(scope="module")
def whole(store: Store) -> bytes:
    return bundle(store, ["made"])


def files_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def edited(content: bytes, name: str, change: Callable[[Any], None], *, honest: bool = False) -> bytes:
    """The bundle with one JSON file changed; `honest`: its digest in the manifest as well."""
    files = files_of(content)
    found = json.loads(files[name])
    change(found)
    files[name] = json.dumps(found).encode()
    if honest:
        manifest = json.loads(files["MANIFEST.json"])
        manifest["files"][name] = hashlib.sha256(files[name]).hexdigest()
        files["MANIFEST.json"] = json.dumps(manifest).encode()
    return zipped(files)


def test_it_has_all_that_makes_the_table_and_its_check_is_clean(store: Store, whole: bytes) -> None:
    files = files_of(whole)
    assert {"MANIFEST.json", "table.json", "table.csv", "runs/made/spec.json", "runs/made/masks.json", ARM} <= set(files)
    assert "runs/made/irp/lenet300-100-seed0/round-000/report.json" in files and "runs/made/scorer/report.json" in files
    manifest = json.loads(files["MANIFEST.json"])
    assert manifest["runs"] == ["made"] and set(manifest["files"]) == set(files) - {"MANIFEST.json"}
    assert {"autosparse", "commit", "torch"} <= set(manifest["made_by"])
    mask = "runs/made/fanout/lenet300-100/seed10/snip/mask-0.1.safetensors"
    assert json.loads(files["runs/made/masks.json"])[mask] == hashlib.sha256(store.read(mask)).hexdigest()
    assert json.loads(files["runs/made/data/data/report.json"])["digest"] == "d" * 32
    assert differences_in(whole, "x.zip") == []
    assert bundle(store, ["made"]) == whole  # the same runs, the same bytes


def test_nothing_of_the_machine_is_in_it(store: Store, whole: bytes) -> None:
    text = b"\n".join(files_of(whole).values()).decode()
    for secret in ("somebody", "secret", "hunter2", "token", "://", "/home", "/var", "/elsewhere", store.root):
        assert secret not in text, secret
    assert '"dataset": "cifar"' in text and "(left out) gave up, see (left out)" in text
    assert str(Path.home()) not in text and "127.0.0.1" not in text


def test_keys_and_words_stay() -> None:
    kept = ["runs/a/mask.safetensors", "and/or, 1/2, a / b", "hf:owner/name", "package.module:object"]
    assert without_machine({"a": kept}) == {"a": kept}
    gone = ["/data/x", "~/x", "s3://bucket/x", "sqlite:////tmp/db", r"C:\Users\me", "at (/tmp/x)", "file:///tmp/x"]
    assert without_machine(gone) == [*["(left out)"] * 5, "at ((left out))", "(left out)"]
    assert without_machine({"path": "s3://key:word@bucket/a/cifar/"}) == {"path": "cifar"}


def test_a_changed_report_is_found(whole: bytes) -> None:
    def better(report: Any) -> None:
        report["accuracy"] = 0.9

    found = differences_in(edited(whole, ARM, better), "x")
    assert found[0].startswith(f"{ARM}: changed, SHA-256 ")
    mean = [line for line in found if line.startswith("table.json: rows: lenet300-100/snip@0.1: mean: ")]
    assert mean == ["table.json: rows: lenet300-100/snip@0.1: mean: 0.81 by the reports, 0.71 in the bundle"]  # (.9 + .72) / 2
    honest = differences_in(edited(whole, ARM, better, honest=True), "x")
    assert honest and all(line.startswith(("table.json: rows: ", "table.csv: ")) for line in honest)


def test_a_changed_table_a_changed_spec_and_files_that_come_and_go_are_found(whole: bytes) -> None:
    def table(found: Any) -> None:
        found["rows"][0]["mean"] += 0.01

    assert differences_in(edited(whole, "table.json", table, honest=True), "x") == [
        "table.json: rows: lenet300-100/dense@1: mean: 0.91 by the reports, 0.92 in the bundle"
    ]

    def spec(found: Any) -> None:
        found["spec"]["fanout"]["train"]["epochs"] = 3

    (changed,) = differences_in(edited(whole, "runs/made/spec.json", spec, honest=True), "x")
    assert changed.startswith("runs/made/spec.json: the fingerprint of the spec is ")
    files = files_of(whole)
    del files[ARM], files["table.csv"]
    found = differences_in(zipped({**files, "more.txt": b""}), "x")
    assert found[:3] == [f"{ARM}: missing", "table.csv: missing", "more.txt: not in the manifest"] and len(found) > 3


def test_what_is_no_bundle_is_one_line(whole: bytes) -> None:
    for content in (b"", b"no zip", zipped({"a": b"b"}), zipped({"MANIFEST.json": b"[]"}), zipped({"MANIFEST.json": b"{"}), whole[:-200]):
        with pytest.raises(DataError, match="^x: no results bundle"):
            differences_in(content, "x")
    files = files_of(whole)
    with pytest.raises(DataError, match="^x: format 2 is not allowed; allowed: 1"):
        differences_in(edited(whole, "MANIFEST.json", lambda manifest: manifest.update(format=2)), "x")
    found = differences_in(zipped({**files, "runs/../../up.json": b"{}"}), "x")
    assert found[0] == "runs/../../up.json: not in the manifest" and found[1].startswith("table: cannot be made from the reports: key: ")
    with pytest.raises(SpecError, match="^RUN: 'none'"):
        bundle(None, [])  # pyright: ignore[reportArgumentType]


def test_the_command(store: Store, tmp_path: Path, typed: Typed) -> None:
    file = tmp_path / "results.zip"
    made = typed("bundle", "made", "--out", str(file), AUTOSPARSE_STORAGE=store.root)
    assert (made.returncode, made.stdout) == (0, f"{file}\n")
    checked = typed("bundle", "--check", str(file))
    assert checked.returncode == 0 and "every digest is right" in checked.stdout
    file.write_bytes(edited(file.read_bytes(), ARM, lambda report: report.update(accuracy=0.9)))
    changed = typed("bundle", "--check", str(file), "--json")
    assert changed.returncode == 1 and json.loads(changed.stdout)["differences"]
    for line, message in (
        (("bundle", "made"), "--out: 'none' is not allowed"),
        (("bundle", "made", "--check", str(file)), "by itself, without runs and --out"),
        (("bundle", "--check", str(tmp_path / "nothing")), "nothing: not found"),
    ):
        refused = typed(*line, AUTOSPARSE_STORAGE=store.root)
        assert refused.returncode == 2 and message in refused.stderr and len(refused.stderr.splitlines()) == 1
