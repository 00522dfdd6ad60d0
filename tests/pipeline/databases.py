"""Databases of Prefect and MLflow with nothing in them: to make both takes five seconds of a core in each new home."""

import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from filelock import FileLock

SHARED = os.environ.get("SHARED_BY_HALVES")  # a folder of `.ci/halves`: they are made once for all parts
FILES = ("prefect/prefect.db", "mlflow.db")  # below a home
TELEMETRY_OFF = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}


def give_databases(home: Path) -> None:
    """Put them into a home that has neither, as services of the same versions would make them there."""
    if not any((home / name).exists() for name in FILES):
        shutil.copytree(_empty(), home, dirs_exist_ok=True)


@cache
def _empty() -> Path:
    home = Path(SHARED or tempfile.mkdtemp(), "databases")
    (home / "prefect").mkdir(parents=True, exist_ok=True)
    with FileLock(home.with_suffix(".lock")):
        if not (home / FILES[-1]).exists():
            environment = {**os.environ, **TELEMETRY_OFF, "PREFECT_HOME": str(home / "prefect")}
            prefect = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
            mlflow = [sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{home}/{FILES[-1]}"]
            for command in (prefect, mlflow):
                subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    return home
