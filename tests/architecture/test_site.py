"""The site builds without a warning and loads nothing from elsewhere; the pages made from the code have what the code has."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import autosparse
from tests.architecture.test_cli_surface import SURFACE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. MkDocs checks every link and anchor between its pages; the links to files of the repository: docs/_site/pages.py."""
    folder = tmp_path_factory.mktemp("site")
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_it_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        loaded = re.findall(r"<(?:script|link|img)\b[^>]*\b(?:src|href)=\"?(https?://[^\" >]+)", page.read_text())
        assert loaded == [], page.name


def test_every_command_option_and_name_is_there(site: Path) -> None:
    commands = (site / "reference/command-line.html").read_text()
    assert [name for name in SURFACE if f"autosparse {name}" not in commands] == []
    assert [option for options in SURFACE.values() for option in options if option not in commands] == []
    python = (site / "reference/python.html").read_text()
    assert [name for name in autosparse.PLACES if f'id="{autosparse.PLACES[name]}.{name}"' not in python] == []


def test_every_field_of_a_spec_is_there(site: Path) -> None:
    fields = (site / "reference/spec.html").read_text()
    for path in ("fanout.train", "irp.job", "scorer", "valley", "fanout.targets.network"):
        assert f"<code>{path}</code>" in fields, path
    for name in ("final_density", "test_share", "mixup", "gpus_per_worker", "blend"):
        assert f"<code>{name}</code>" in fields, name


def test_the_schemas_of_reports_are_a_page_and_files(site: Path) -> None:
    page = (site / "reference/reports.html").read_text()
    for field in ("effective_density", "deployed.latency_ms", "epochs[].loss", "layer_densities", "scoring_seconds"):
        assert f"<code>{field}</code>" in page, field
    assert json.loads((site / "schemas/arm.json").read_text())["title"] == "Report of an arm"


def test_every_page_of_the_docs_has_a_place_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    docs = ROOT / "docs"
    assert [page.name for page in docs.rglob("*.md") if str(page.relative_to(docs)) not in navigation] == []
