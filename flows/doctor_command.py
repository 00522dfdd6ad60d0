"""`autosparse doctor`: what is wrong with where it runs, and the line that mends it."""

import json
from collections.abc import Iterator
from dataclasses import asdict

from rich.console import Console

from autosparse.models.errors import AutosparseError
from autosparse.tasks import settings as settings_module
from autosparse.tasks.doctor.examine import Row, examine
from autosparse.tasks.doctor.finding import OK, WARNING, WRONG

console = Console(soft_wrap=True, highlight=False, markup=False)
STYLES = {OK: "green", WARNING: "yellow", WRONG: "red"}


def print_findings(*, as_json: bool) -> int:
    """A line for each check; the exit status: 1 where something is wrong."""
    rows = []
    for row in _rows():
        rows.append(row)
        if not as_json:
            _print(row)
    if as_json:
        console.print(json.dumps([asdict(row) for row in rows], indent=2))
    return int(any(row.state == WRONG for row in rows))


def _rows() -> Iterator[Row]:
    try:
        here = settings_module.load()
        settings_module.export(here)
    except AutosparseError as error:  # nothing else can be looked at
        yield Row(check="settings", state=WRONG, said=str(error), mend=error.details.get("mend"))
        return
    yield from examine(here)


def _print(row: Row) -> None:
    console.print(f"{row.state:8}", style=STYLES[row.state], end="")
    console.print(f"{row.check:12} {row.said}")
    if row.mend and row.mend not in row.said:
        console.print(f"{'':21}{row.mend}")
