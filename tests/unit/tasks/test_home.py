"""Homes as machines have them: none, a file, read-only, with spaces and umlauts; users that the system does not know."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autosparse.models.errors import SpecError
from autosparse.tasks import settings
from autosparse.tasks.home import check_home, home_folder, settle_user

MEND = r"; export AUTOSPARSE_HOME=/a/folder/that/you/may/write/to$"
UNKNOWN_USER = 54321


def as_unknown_user(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A script as a user without an entry and without rights; modules are loaded before, as whoever runs the tests may read them."""
    before = "import os, getpass; from autosparse.tasks import settings, home; "
    gone = f"os.setgid({UNKNOWN_USER}); os.setuid({UNKNOWN_USER})\n"
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[3]), **environment}
    return subprocess.run([sys.executable, "-c", before + gone + script], env=given, capture_output=True, text=True, timeout=60)


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="another user can only be tried by root")


def test_it_is_what_the_setting_says_or_lies_in_that_of_the_user() -> None:
    assert home_folder({"HOME": "/home/a"}) == Path(os.path.expanduser("~/.autosparse"))
    assert home_folder({"AUTOSPARSE_HOME": "/x/ü ber"}) == Path("/x/ü ber")
    assert home_folder({"AUTOSPARSE_HOME": "", "HOME": "/home/a"}).name == ".autosparse", "not the current folder"


def test_an_empty_home_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOSPARSE_HOME")
    monkeypatch.setenv("HOME", "")
    assert settings.load().home.parent != Path.cwd()


@pytest.mark.parametrize(("place", "reason"), [("file", "File exists"), ("file/below", "Not a directory")])
def test_one_that_cannot_be_made_is_one_line_that_names_it(place: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpecError, match=rf"^AUTOSPARSE_HOME: [^\n]* cannot be used as home \({reason}\){MEND}"):
        check_home(tmp_path / place)


@pytest.mark.parametrize("name", ["what?", "a#b", "c%20d"])
def test_one_that_would_spoil_the_address_of_a_database_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"cannot be used as home \(addresses of databases are made of it, so it may have none of # % \?\)"):
        check_home(tmp_path / name)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["mit leer und ü", "x" * 100])
def test_one_that_can_be_written_to_is_left_empty(name: str, tmp_path: Path) -> None:
    check_home(tmp_path / name)
    check_home(tmp_path / name)
    assert list((tmp_path / name).iterdir()) == []


@needs_root
def test_one_of_somebody_else_is_one_line(tmp_path: Path) -> None:
    for parent in (tmp_path, *tmp_path.parents):
        assert os.stat(parent).st_uid == 0
    done = as_unknown_user(f"home.check_home(home.Path({str(tmp_path)!r}))")
    last = done.stderr.strip().splitlines()[-1]
    assert f"AUTOSPARSE_HOME: {tmp_path} cannot be used as home (Permission denied); export" in last


@needs_root
def test_a_user_whom_the_system_does_not_know_without_a_home_is_one_line() -> None:
    done = as_unknown_user("settings.load()")
    last = done.stderr.strip().splitlines()[-1]
    assert "SpecError: AUTOSPARSE_HOME: ~/.autosparse cannot be used as home (" in last and last.endswith(MEND[:-1])


@needs_root
def test_a_user_whom_the_system_does_not_know_gets_a_name_and_a_home(tmp_path: Path) -> None:
    script = "home.settle_user(os.environ, home.Path('/a home')); print(getpass.getuser(), os.path.expanduser('~/x'))"
    assert as_unknown_user(script).stdout.split(" ", 1) == [f"user{UNKNOWN_USER}", "/a home/x\n"]
    given = as_unknown_user(script + "; print(os.environ['MPLCONFIGDIR'])", HOME="/", LOGNAME="me")
    assert given.stdout.splitlines() == ["me /x", "/a home/cache/matplotlib"]


def test_a_known_user_keeps_everything(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    settle_user(environment, Path("/elsewhere"))
    assert environment == {"HOME": str(tmp_path)}


@pytest.mark.parametrize("text", ["much", "-1", "1e3"])
def test_seconds_that_are_none_are_one_line(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOSPARSE_MLFLOW_SECONDS", text)
    with pytest.raises(SpecError, match=rf"^AUTOSPARSE_MLFLOW_SECONDS: '{text}' is not allowed; allowed: seconds: 240$"):
        settings.load()
