"""What a release carries: licences that somebody has looked at, a bill of materials, a citation with the version."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from autosparse import __version__

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def release() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / ".ci/release.py"))


def test_every_locked_package_has_a_known_licence(release: dict[str, Any]) -> None:
    assert (ROOT / "docs/licences.md").read_text() == release["page"](), "python .ci/release.py docs/licences.md writes it"


def test_an_unknown_package_is_refused(release: dict[str, Any]) -> None:
    with pytest.raises(KeyError, match="not installed here"):
        release["licence"]("a-package-that-is-nowhere")


def test_the_bill_of_materials_has_every_package_once(release: dict[str, Any]) -> None:
    bill = json.loads(release["bill"]())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["version"] == __version__
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert [f"{one['name']}=={one['version']}" for one in bill["components"]] == lines


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["title"], citation["version"], citation["license"]) == ("autosparse", __version__, "Apache-2.0")
