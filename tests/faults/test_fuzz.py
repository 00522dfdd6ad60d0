"""Spoiled inputs at every door: a valid result or one of our own errors, in time, and nothing half-made."""

import shutil
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from autosparse.models.errors import AutosparseError
from tests.faults.fuzz.doors import DOORS
from tests.faults.matrix import fault

ALL = 20_000  # inputs at all doors together
QUICK = 40  # per door
SECONDS = 30  # per input, on a machine that is busy with other things
COUNTS = {name: int(ALL / sum(1 / one.cost for one in DOORS.values()) / door.cost) + 1 for name, door in DOORS.items()}


@contextmanager
def in_time() -> Iterator[None]:
    """Fail when it takes longer than SECONDS."""

    def late(*_: Any) -> None:
        raise AssertionError(f"took longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def spoil(name: str, count: int, folder: Path) -> dict[str, int]:
    """Try `count` inputs at a door; how many there were, and how many of them were valid all the same."""
    door, tried = DOORS[name], {"inputs": 0, "valid": 0}

    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=True,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(door.inputs)
    def enter(given: Any) -> None:
        tried["inputs"] += 1
        here = folder / "one"
        here.mkdir()
        try:
            with in_time(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                door.enter(given, here)
            tried["valid"] += 1
        except AutosparseError:
            pass
        finally:
            shutil.rmtree(here)

    enter()
    return tried


@pytest.mark.parametrize("name", DOORS)
@fault(None, "a few hundred spoiled inputs at all doors", "a valid result or an error of ours; no traceback, no hang, nothing half-made")
def test_spoiled_inputs(name: str, tmp_path: Path) -> None:
    tried = spoil(name, max(QUICK // DOORS[name].cost, 5), tmp_path)
    assert tried["inputs"] > tried["valid"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", DOORS)
@fault(None, "spoiled specs, manifests, Parquet files, pictures, masks, scorers, checkpoints: over 20,000 in all", "as above")
def test_thousands_of_spoiled_inputs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tried = spoil(name, COUNTS[name], tmp_path)
    with capsys.disabled():
        print(f"\n{name}: {tried['inputs']} spoiled inputs, {tried['valid']} valid all the same", end=" ")  # noqa: T201
    assert tried["inputs"] >= COUNTS[name]


@fault(None, "the inputs of the test above, counted", "at least 20,000")
def test_there_are_enough() -> None:
    assert sum(COUNTS.values()) >= 20_000
