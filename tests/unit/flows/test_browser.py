"""A page is opened where somebody can see it, and nowhere else."""

import webbrowser
from pathlib import Path

import pytest

from autosparse.flows.browser import open_page


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that the browser was asked to open."""
    found: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: found.append(address) or True)
    monkeypatch.setattr("sys.platform", "linux")
    return found


def test_with_a_display_it_is_opened(seen: list[str], tmp_path: Path) -> None:
    (page := tmp_path / "a page.html").write_text("<p>")
    assert open_page(str(page), {"DISPLAY": ":0"}) and open_page(str(page), {"WAYLAND_DISPLAY": "wayland-0"})
    assert seen == [page.as_uri()] * 2 and "a%20page.html" in seen[0]


def test_without_one_or_without_a_local_page_it_is_not(seen: list[str], tmp_path: Path) -> None:
    (page := tmp_path / "page.html").write_text("<p>")
    assert not open_page(str(page), {"DISPLAY": ""})
    assert not open_page("s3://bucket/page.html", {"DISPLAY": ":0"})
    assert not open_page(str(tmp_path / "none.html"), {"DISPLAY": ":0"})
    assert seen == []
