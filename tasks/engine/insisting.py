"""Ctrl-C that does not get lost: Python drops a KeyboardInterrupt that strikes a finalizer or a callback in the middle of a library."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN_S = 5.0  # a KeyboardInterrupt that nobody has heard by then was dropped
LOOK_S = 0.5


class _Unheard:
    """The handler of SIGINT that was there before, and when it last raised what nobody has heard yet."""

    def __init__(self) -> None:
        self.before = signal.getsignal(signal.SIGINT)
        self.since: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.since = time.monotonic()
        if callable(self.before):
            self.before(number, frame)

    def remind(self, left: threading.Event) -> None:
        """Until `left` is set, send the signal again while it is unheard."""
        while not left.wait(LOOK_S):
            if self.since is not None and time.monotonic() - self.since >= AGAIN_S:
                os.kill(os.getpid(), signal.SIGINT)


@contextmanager
def insisting() -> Iterator[None]:
    """Inside, a SIGINT whose KeyboardInterrupt does not leave the block is sent again; on the main thread, the only one that hears it.

    Blocks lie in each other: the innermost that an exception leaves has heard it, so that nothing strikes what cleans up after it.
    """
    now = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(now):
        yield
        return
    handler, left = now if isinstance(now, _Unheard) else _Unheard(), threading.Event()
    if handler is not now:
        signal.signal(signal.SIGINT, handler)
        threading.Thread(target=handler.remind, args=(left,), name="insisting", daemon=True).start()
    try:
        yield
    except BaseException:
        handler.since = None  # heard
        raise
    finally:
        if handler is not now:
            left.set()
            signal.signal(signal.SIGINT, now)
