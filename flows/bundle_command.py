"""`autosparse bundle`: what is needed to check a table, in one file, and the check."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from autosparse.flows.table_command import write
from autosparse.models.errors import not_allowed
from autosparse.storage.disk import disk_error
from autosparse.storage.open_store import open_store
from autosparse.tasks import settings
from autosparse.tasks.results.bundle import bundle, differences_in


def write_bundle(runs: Sequence[str], out: Path | None, over: Sequence[str], against: str | None) -> Path:
    """Write the bundle of these runs. Raises SpecError and DataError."""
    if out is None:
        raise not_allowed("--out", "none", "the file to write, as results.zip")
    write(out, bundle(open_store(settings.load().storage), runs, over, against))
    return out


def check_bundle(file: Path, runs: Sequence[str], out: Path | None, *, as_json: bool) -> int:
    """Print what of a bundle is not as it was made, a line each; 1 where there is something. Raises SpecError and DataError."""
    if runs or out:
        raise not_allowed("--check", str(file), "by itself, without runs and --out")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise disk_error(file, error) from error
    found = differences_in(content, str(file))
    if as_json:
        sys.stdout.write(json.dumps({"file": str(file), "differences": found}, indent=2) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in found or [f"{file}: the table is that of its reports, and every digest is right"]))
    return 1 if found else 0
