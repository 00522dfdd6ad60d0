"""What the programs say of themselves, asked once for all files of this folder."""

import pytest

from tests.unit.docker.helps import helps_of


@pytest.fixture(scope="session")
def helps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The help of each command of `helps.COMMANDS`."""
    return helps_of(str(tmp_path_factory.mktemp("home")))
