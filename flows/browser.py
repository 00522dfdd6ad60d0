"""Opens a page in a person's browser, where there is a screen to open it on."""

import os
import sys
import webbrowser
from collections.abc import Mapping
from pathlib import Path

SCREENS = ("DISPLAY", "WAYLAND_DISPLAY")  # of Linux and BSD; without one a browser of text would take the terminal


def open_page(address: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the page at a local path was given to a browser; no page of S3 is, and none where nobody could see it."""
    if "://" in address or not Path(address).is_file():
        return False
    if sys.platform not in ("darwin", "win32") and not any(environment.get(name) for name in SCREENS):
        return False
    return webbrowser.open(Path(address).resolve().as_uri())
