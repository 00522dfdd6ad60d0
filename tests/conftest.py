"""No test sees the settings of the machine, and none leaves a thread count behind."""

from pathlib import Path

import pytest

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
