"""One undisturbed run, with whose bits every disturbed one is compared."""

import os
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.faults.runs import result, run

SHARED = os.environ.get("SHARED_BY_HALVES")  # a folder of `.ci/halves`: the run is made once for both


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of the small run that nothing happened to (`runs.result`), and its home as `home`, which nobody may write to."""
    home = Path(SHARED or tmp_path_factory.mktemp("shared"), "undisturbed")
    with FileLock(home.with_suffix(".lock")):
        if not home.with_suffix(".done").exists():
            home.mkdir(exist_ok=True)
            done = run(home, timeout=600)
            assert done.returncode == 0, done.stderr[-3000:]
            home.with_suffix(".done").touch()
    return {**result(home / "storage"), "home": home}
