"""Reports of finished steps as JSON, with where and by what they were made."""

import functools
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from autosparse import __version__
from autosparse.storage import paths
from autosparse.storage.store import Store


def find(store: Store, step: str) -> dict[str, Any] | None:
    """The report of a step, or None when the step is not done. Raises DataError when the report is not JSON."""
    key = paths.report(step)
    return store.read_json(key) if store.exists(key) else None


def steps(store: Store, folder: str) -> list[str]:
    """The steps below a folder that are done, sorted."""
    return [step for key in store.list(folder) if (step := paths.reported(key))]


def under(store: Store, folder: str) -> list[dict[str, Any]]:
    """The reports of `steps`. Raises DataError when one is not JSON."""
    return [store.read_json(paths.report(step)) for step in steps(store, folder)]


def save(store: Store, step: str, report: dict[str, Any]) -> dict[str, Any]:
    """Write a step's report, which marks the step as done; everything it names must be in place already."""
    stored = {**report, "made_by": provenance()}
    store.write_json(paths.report(step), stored)
    return stored


@functools.cache
def provenance() -> dict[str, str]:
    """Versions, commit and machine, so that a mix of code or hardware is visible in any report."""
    return {
        "autosparse": __version__,
        "commit": _commit(),
        "torch": _version("torch"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _commit() -> str:
    if given := os.environ.get("AUTOSPARSE_COMMIT"):
        return given
    root = Path(__file__).resolve().parent.parent
    try:
        found = subprocess.run(["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() or "unknown"
