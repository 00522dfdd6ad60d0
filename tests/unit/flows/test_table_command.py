"""`autosparse table` as it is typed: forms, files, refusals."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from autosparse.storage.store import Store

Typed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def store(made: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return made.run(tmp_path_factory.mktemp("table"))


def test_forms_and_files(store: Store, tmp_path: Path, typed: Typed) -> None:
    """The made run: snip .71 and .60, the scorer .77 and .50 at .1 and .02; every difference is the same on both seeds."""

    def table(*options: str) -> str:
        done = typed("table", "made", *options, AUTOSPARSE_STORAGE=store.root)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "| snip | 0.710 ± 0.014 (n=2) | 0.600 ± 0.000 (n=2) |" in table()
    assert table("--markdown") == table() and "What the arms cost" in table("--costs")
    rows = json.loads(table("--json"))["rows"]
    assert len(table("--csv").splitlines()) == 1 + len(rows)
    for ending, option in ((".tex", "--latex"), (".csv", "--csv"), (".json", "--json"), (".md", "--markdown"), (".txt", "--markdown")):
        file = tmp_path / f"deep/table{ending}"
        assert table("--out", str(file)) == f"{file}\n" and file.read_text() == table(option)
    picture = tmp_path / "plot.png"
    table("--plot", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_written_or_drawn_is_one_line(store: Store, tmp_path: Path, typed: Typed) -> None:
    (tmp_path / "file").write_text("")
    for options, message in (
        (("--out", str(tmp_path / "file/table.md")), "file/table.md: File exists"),
        (("--plot", str(tmp_path / "x.png"), "--over", "irp.rounds"), "allowed: a plot without --over irp.rounds"),
        (("--against", "snap"), "did you mean 'snip'?"),
    ):
        done = typed("table", "made", *options, AUTOSPARSE_STORAGE=store.root)
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
        assert not (tmp_path / "x.png").exists()
