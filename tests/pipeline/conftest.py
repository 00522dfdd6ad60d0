"""One undisturbed run, which several files compare theirs with."""

import json
from pathlib import Path
from typing import Any

import pytest

from autosparse.storage.open_store import open_store
from autosparse.tasks.results.run_view import view_run
from tests.pipeline.command_line import CHANGES, cli


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An undisturbed run of the smoke recipe: its home and what `show --json` says. The recipe is named as one of a person's own
    module, which differs in its methods alone, and those are among CHANGES."""
    home = tmp_path_factory.mktemp("whole")
    done = cli(home, "run", "--recipe", "examples.own_criterion:recipe", *CHANGES)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "test accuracy, last epoch" in done.stdout
    name = next(path.name for path in (home / "storage/runs").iterdir())
    return home, json.loads(json.dumps(view_run(open_store(str(home / "storage")), name)))
