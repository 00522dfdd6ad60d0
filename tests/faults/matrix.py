"""The mark that makes a test a row of the fault matrix, and the rows in order."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ROWS = range(1, 33)


@dataclass(frozen=True)
class Row:
    """One test: the fault, the end state that it asserts, what of it is only simulated on one CPU machine, why it is not reached yet."""

    number: int | None
    fault: str
    end: str
    simulated: str
    test: str
    slow: bool
    gap: str


def fault(number: int | None, what: str, end: str, *, simulated: str = "") -> pytest.MarkDecorator:
    """Mark a test as row `number` of the matrix (None: beyond its 32 rows); a row may have several tests."""
    return pytest.mark.fault(number, what, end, simulated)


def rows() -> list[Row]:
    """All marked tests, by row and name."""
    return sorted(_found(), key=lambda row: (row.number or len(ROWS) + 1, row.test))


def _found() -> Iterator[Row]:
    for path in sorted(FOLDER.glob("test_*.py")):
        module = importlib.import_module(f"tests.faults.{path.stem}")
        common = _marks(module)
        for name, function in vars(module).items():
            if not name.startswith("test_"):
                continue
            own = _marks(function)
            slow = any(mark.name == "slow" for mark in own + common)
            gap = next((mark.kwargs["reason"] for mark in own if mark.name == "xfail"), "")
            yield from (Row(*mark.args, test=f"{path.name}::{name}", slow=slow, gap=gap) for mark in own if mark.name == "fault")


def _marks(owner: object) -> list[pytest.Mark]:
    found = getattr(owner, "pytestmark", [])
    return [getattr(mark, "mark", mark) for mark in (found if isinstance(found, list) else [found])]
