"""The home of autosparse: where it is, and whether it can be used."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

from autosparse.models.errors import SpecError

VARIABLE = "AUTOSPARSE_HOME"
NO_ADDRESS = {"?", "#", "%"}
MEND = f"export {VARIABLE}=/a/folder/that/you/may/write/to"


def home_folder(environment: MutableMapping[str, str]) -> Path:
    """AUTOSPARSE_HOME, else `.autosparse` in the home of the user. Raises SpecError where there is neither."""
    if not environment.get("HOME"):
        environment.pop("HOME", None)  # an empty one would be the current folder
    named = environment.get(VARIABLE) or "~/.autosparse"
    try:
        return Path(named).expanduser().absolute()
    except (RuntimeError, OSError) as error:  # no HOME, and a user without an entry in the system's list; no current folder
        raise unusable(named, f"{error}".rstrip(".") or type(error).__name__) from None


def check_home(home: Path) -> None:
    """Make the folder, write to it and lock a file in it. Raises SpecError, one line, where that does not go."""
    if NO_ADDRESS & set(str(home)):
        raise unusable(str(home), f"addresses of databases are made of it, so it may have none of {' '.join(sorted(NO_ADDRESS))}")
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home) as probe:
            probe.write(b"probe")
            probe.flush()
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise unusable(str(home), os.strerror(error.errno) if error.errno else str(error)) from None


def unusable(home: str, reason: str) -> SpecError:
    """The one line about a home that will not do."""
    shown = home if home.isprintable() else ascii(home)
    return SpecError(f"{VARIABLE}: {shown} cannot be used as home ({reason}); {MEND}", {"mend": MEND})


def settle_user(environment: MutableMapping[str, str], home: Path) -> None:
    """A container may run us as a user whom the system does not know, without a home: others' code asks for both and fails."""
    if not environment.get("HOME"):
        with contextlib.suppress(RuntimeError):
            environment["HOME"] = str(Path("~").expanduser())
            return
        environment["HOME"] = str(home)
    if not os.access(environment["HOME"], os.W_OK):
        environment.setdefault("MPLCONFIGDIR", str(home / "cache" / "matplotlib"))
    with contextlib.suppress(KeyError, ImportError):
        import pwd

        pwd.getpwuid(os.getuid())
        return
    environment.setdefault("LOGNAME", f"user{os.getuid()}")
