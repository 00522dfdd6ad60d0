"""What a benchmark writes down says nothing of the place where it ran."""

import json
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.reporting import ROOT, save

RESULTS = sorted((ROOT / "benchmarks/results").glob("*.json"))


def test_of_absolute_paths_the_last_name_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "made.json"
    save("made", [], Namespace(json=file, data="/a/b/cifar10", out=Path("/tmp/x.jsonl"), recipe="demo", share=0.5, at="runs/first"))
    settings = json.loads(file.read_text())["settings"]
    assert settings == {"data": "cifar10", "out": "x.jsonl", "recipe": "demo", "share": 0.5, "at": "runs/first"}


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.name)
def test_no_committed_result_has_one(file: Path) -> None:
    assert [text for text in texts(json.loads(file.read_text())) if text.startswith("/")] == []


def texts(found: Any) -> Iterator[str]:
    """Every text in JSON-like data."""
    if isinstance(found, str):
        yield found
    elif isinstance(found, list | dict):
        for part in found.values() if isinstance(found, dict) else found:
            yield from texts(part)
