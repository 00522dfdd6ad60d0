"""Which cases of a long list run in `make test`, and which in `make test-slow` alone."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def quick(cases: Iterable[str], chosen: Collection[str]) -> list[Any]:
    """The cases as parameters; all but the chosen ones are marked slow. A chosen one that is no case is a mistake."""
    listed = list(cases)
    assert set(chosen) <= set(listed), sorted(set(chosen) - set(listed))
    return [case if case in chosen else pytest.param(case, marks=pytest.mark.slow) for case in listed]
