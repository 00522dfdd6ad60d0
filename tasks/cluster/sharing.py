"""Several runs on one Ray: each takes its fair share of what is there, looked at again before every job.

The runs of a cluster are the event queues that live in its namespace. Each belongs to its driver and goes with it, so that nothing has to
be renewed, and nothing of a killed run is left to be counted.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray.util

from autosparse.tasks.cluster.capacity import fair_share

RUN = "run-"  # begins the names of event queues
LOOK_S = 1.0


def runs_alive() -> int:
    """How many runs this Ray works for, this one included."""
    return max(1, sum(name.startswith(RUN) for name in ray.util.list_named_actors()))


class Turns:
    """Jobs of one run that are placed one by one: as many at once as its share allows."""

    def __init__(self) -> None:
        self._running = 0
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, slots: Callable[[], int], runs: Callable[[], int], check: Callable[[], None]) -> Iterator[None]:
        """Wait for a turn, and have it inside the block; `check` is called before each look, and may raise."""
        with self._changed:
            check()
            while self._running >= fair_share(slots(), runs()):
                self._changed.wait(LOOK_S)
                check()
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()
