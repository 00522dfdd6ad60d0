"""Finished arms as lines of JSON in one file: what a benchmark that was ended goes on from."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autosparse.models.errors import DataError, not_allowed

Record = dict[str, Any]

START = '{"network": "'  # of every line: a file that is none of ours is never cut


def read_arms(path: Path, expected: Callable[[Record], Mapping[str, Any]]) -> list[Record]:
    """The arms in `path`, none if there is no file; half a line at its end, left by a process that was killed, is taken away.

    `expected(record)` are the fields that the record's `protocol` must have. Raises SpecError where one differs, DataError for
    a line that is no arm.
    """
    if not path.exists():
        return []
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    whole, half = text[: text.rfind("\n") + 1], text[text.rfind("\n") + 1 :]
    records = [_record(line, f"{path} line {number}", expected) for number, line in enumerate(whole.splitlines(), 1)]
    if half:
        if not (half.startswith(START) or START.startswith(half)):
            raise DataError(f"{path}: not a file of finished arms")
        os.truncate(path, len(whole.encode()))
    return records


def append_arm(path: Path, record: Record) -> None:
    """Add one line, on the disk when this returns; `record` begins with `network`."""
    line = json.dumps(record, allow_nan=False) + "\n"
    assert line.startswith(START), "a line that would not be known again"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _record(line: str, place: str, expected: Callable[[Record], Mapping[str, Any]]) -> Record:
    try:
        record = json.loads(line)
        fields, known = record["protocol"], expected(record)
        for name, value in known.items():
            if fields.get(name) != value:
                raise not_allowed(f"{place}: {name}", fields.get(name), f"{value!r}, as in this call; otherwise another --out")
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{place}: not a finished arm ({type(error).__name__}: {error})") from error
    return record
