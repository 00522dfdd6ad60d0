"""Progress of the run in this process, for whoever shows it: the terminal, a Prefect artifact."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Listener = Callable[["Event"], None]


@dataclass(frozen=True)
class Event:
    """`kind`: planned, started, epoch, restarted, finished, cached, failed, note, warning or waiting; `step`: its key."""

    kind: str
    step: str
    title: str = ""
    fields: dict[str, Any] = field(default_factory=dict)


_listeners: list[Listener] = []
_lock = threading.Lock()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call `listener` for each event of this process inside the block; it runs in the thread that emits."""
    with _lock:
        _listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(listener)


def emit(kind: str, step: str, title: str = "", **fields: Any) -> None:
    """Tell everyone who listens."""
    with _lock:
        listeners = tuple(_listeners)
    for listener in listeners:
        listener(Event(kind, step, title, fields))
