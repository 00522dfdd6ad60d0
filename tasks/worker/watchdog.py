"""Ends a process that hangs: Ray then counts a lost worker and starts its job again, where it would have waited for ever."""

import faulthandler
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from autosparse.tasks.worker.job import Job

STDERR = 2  # as a descriptor: Ray puts its log there, and nothing needs to be flushed
GRACE_S = 30  # after which a thread that never lets go of the interpreter is ended from outside of it


@contextmanager
def watched(job: Job) -> Iterator[Callable[[], None]]:
    """Inside the block this process is ended when what is returned was not called for `step_timeout` seconds.

    Where it hung stands in its log: the stack of every thread. The other ranks, which wait for this one, end the same way.
    """
    limit, last, over = job.resources.step_timeout, [time.monotonic()], threading.Event()

    def alive() -> None:
        last[0] = time.monotonic()

    def watch() -> None:
        while not over.wait(min(limit / 10, 10)):
            if time.monotonic() - last[0] > limit:
                faulthandler.dump_traceback(STDERR)
                job.last_words(f"no step for {limit:g} s")
                os._exit(1)
            faulthandler.dump_traceback_later(limit + GRACE_S, exit=True, file=STDERR)

    thread = threading.Thread(target=watch, name="watchdog", daemon=True)
    thread.start()
    try:
        yield alive
    finally:
        over.set()
        thread.join()
        faulthandler.cancel_dump_traceback_later()
