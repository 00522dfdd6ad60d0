"""A KeyboardInterrupt that Python drops comes again; one that was heard does not."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from autosparse.tasks.engine import insisting as module
from autosparse.tasks.engine.insisting import insisting


class Drops:
    """Is struck by SIGINT while it is finalized, where Python drops what is raised."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "AGAIN_S", 0.2)
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    there = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    yield
    assert signal.signal(signal.SIGINT, there) is signal.default_int_handler


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_was_dropped_comes_again() -> None:
    start, dropped = time.monotonic(), []

    def struck() -> None:
        with insisting(), insisting():
            Drops()
            dropped.append(True)
            time.sleep(30)

    with pytest.raises(KeyboardInterrupt):
        struck()
    assert dropped
    assert time.monotonic() - start < 10


def test_what_was_heard_does_not_strike_the_cleaning_up() -> None:
    cleaned = []

    def struck() -> None:
        with insisting():
            try:
                with insisting():
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(30)
            finally:
                time.sleep(0.8)
                cleaned.append(True)

    with pytest.raises(KeyboardInterrupt):
        struck()
    assert cleaned


def test_without_a_signal_and_in_other_threads_nothing_happens() -> None:
    with insisting():
        time.sleep(0.5)
    found: list[object] = []

    def inside() -> None:
        with insisting():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]
