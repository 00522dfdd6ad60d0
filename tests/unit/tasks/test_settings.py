import os
from unittest.mock import patch

import pytest

from autosparse.models.errors import SpecError
from autosparse.storage.memory import machine_memory
from autosparse.tasks import settings


@pytest.mark.parametrize(
    ("text", "expected"), [("5000", 5000), ("8GiB", 8 * 2**30), ("500MB", 500_000_000), ("1.5 kib", 1536), ("0", 0), ("2tb", 2 * 10**12)]
)
def test_image_memory_is_bytes_with_a_unit(text: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOSPARSE_IMAGE_MEMORY", text)
    assert settings.load().image_memory == expected


@pytest.mark.parametrize("text", ["", "much", "-1", "8 GiBs", "1e9", "GB"])
def test_another_image_memory_is_one_line(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOSPARSE_IMAGE_MEMORY", text)
    with pytest.raises(SpecError, match=r"^AUTOSPARSE_IMAGE_MEMORY: [^\n]* is not allowed; allowed: [^\n]*8GiB[^\n]*$"):
        settings.load()


def test_by_default_it_is_a_part_of_the_memory_that_leaves_room_for_other_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOSPARSE_IMAGE_MEMORY", raising=False)
    assert settings.load().image_memory == min(4 * 2**30, machine_memory() // 8)


@pytest.mark.parametrize(("uri", "root"), [(None, "mlflow-artifacts"), ("http://127.0.0.1:5000", None)])
def test_a_database_of_mlflow_makes_no_folder_where_the_command_is_called(uri: str | None, root: str | None) -> None:
    with patch.dict(os.environ, {"MLFLOW_TRACKING_URI": uri} if uri else {}):
        os.environ.pop(settings.ARTIFACT_ROOT, None)
        here = settings.load()
        settings.export(here)
        assert os.environ.get(settings.ARTIFACT_ROOT) == (root and (here.home / root).as_uri())
