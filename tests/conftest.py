"""No test sees the settings of the machine, and none leaves a thread count behind. Commands as a person types them, in this process."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import pytest

from autosparse.flows import cli

SETTINGS = (
    "AUTOSPARSE_STORAGE",
    "AUTOSPARSE_RAY_ADDRESS",
    "AUTOSPARSE_CODE",
    "MLFLOW_TRACKING_URI",
    "PREFECT_API_URL",
    "PREFECT_HOME",
    "RAY_ADDRESS",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
)


@pytest.fixture(autouse=True)
def clean_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home of its own for each test, and none of the settings of whoever runs the tests."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AUTOSPARSE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`typed("show", "x", AUTOSPARSE_HOME=...)`: what `autosparse show x` would print and leave with, without a process of its own.

    For commands that end before they start a service. The environment and the path of modules are as before afterwards.
    """

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        with ExitStack() as stack:
            stack.enter_context(patch.dict(os.environ, environment))
            stack.enter_context(patch.object(sys, "argv", ["autosparse", *arguments]))
            stack.enter_context(patch.object(sys, "path", [*sys.path]))
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "Cyclopts application invoked without tokens under unit-test framework")
            try:
                cli.main()
                status = 0
            except SystemExit as left:
                status = left.code or 0
        assert isinstance(status, int)
        return subprocess.CompletedProcess(arguments, status, *capsys.readouterr())

    return run
