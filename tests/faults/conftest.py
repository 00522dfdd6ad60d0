"""One undisturbed run, with whose bits every disturbed one is compared."""

from pathlib import Path
from typing import Any

import pytest

from tests.faults.runs import result, run


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of the small run that nothing happened to (`runs.result`), and its home as `home`."""
    home: Path = tmp_path_factory.mktemp("undisturbed")
    done = run(home, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return {**result(home / "storage"), "home": home}
