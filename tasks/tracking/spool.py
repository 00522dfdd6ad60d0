"""What is told to a service that may be away: records in a file, handed over in order by a thread of their own.

    <folder>/records.jsonl   one record a line
    <folder>/taken           how many of them the service has
    <folder>/<number>        the content that a record comes with

Putting a record in never waits for the service. What a killed process leaves there, the next one that opens the folder hands
over first; the folder is gone once all of it is taken. A record may be handed over twice when a process dies in between:
the receiver has to know it again. One process at a time works on a folder.
"""

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Record = dict[str, Any]

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0  # seconds between two tries
LAST_TRY_SECONDS = 2.0
TICK_SECONDS = 0.1


class RefusedError(Exception):
    """The service is there and will never take this record."""


class Spool:
    """Records on their way. `trouble` says why the service does not take them now, None while it does."""

    def __init__(self, folder: Path, deliver: Callable[[Record, bytes | None], None]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.trouble: str | None = None
        self.called_off = threading.Event()
        self._deliver = deliver
        self._log = logging.getLogger(__name__)
        self._written = _mend(folder / "records.jsonl")
        self._taken = int((folder / "taken").read_text() or 0) if (folder / "taken").exists() else 0
        self._records = os.open(folder / "records.jsonl", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self._mark = os.open(folder / "taken", os.O_CREAT | os.O_WRONLY, 0o600)
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._hand_over_all, name="spool", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many records the service does not have yet."""
        return self._written - self._taken

    def put(self, record: Record, content: bytes | None = None) -> None:
        """Add a record; from here on it survives the process. After `close` nothing is added: threads of a cancelled run end late."""
        with self._changed:
            if self._closed.is_set():
                return
            if content is not None:
                (self.folder / str(self._written)).write_bytes(content)
            os.write(self._records, json.dumps(record).encode() + b"\n")
            self._written += 1
            self._changed.notify_all()

    def drain(self, seconds: float) -> bool:
        """Wait until the service has everything; False after so many seconds, or once `called_off` is set."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self.waiting and time.monotonic() < deadline and not self.called_off.is_set():
                self._changed.wait(TICK_SECONDS)
            return not self.waiting

    def close(self) -> None:
        """Hand over no more; the folder stays unless it is empty."""
        with self._changed:
            self._closed.set()
            self._changed.notify_all()
        self._thread.join(LAST_TRY_SECONDS)
        os.close(self._records)
        if not self.waiting:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _hand_over_all(self) -> None:
        with open(self.folder / "records.jsonl", "rb") as lines:
            for _ in range(self._taken):
                lines.readline()
            while self._next_is_there():
                content = self.folder / str(self._taken)
                if not self._hand_over(json.loads(lines.readline()), content.read_bytes() if content.exists() else None):
                    break
                content.unlink(missing_ok=True)
                os.pwrite(self._mark, f"{self._taken + 1:012d}".encode(), 0)
                with self._changed:
                    self._taken += 1
                    self._changed.notify_all()
        os.close(self._mark)

    def _next_is_there(self) -> bool:
        with self._changed:
            while not self.waiting and not self._closed.is_set():
                self._changed.wait()
            return not self._closed.is_set()

    def _hand_over(self, record: Record, content: bytes | None) -> bool:
        """Try until it is taken or refused; False when the spool is closed before."""
        pause = FIRST_PAUSE
        while True:
            try:
                self._deliver(record, content)
            except RefusedError as error:
                self._log.warning("refused for good: %s (%s)", {**record, "content": content is not None}, error)
            except Exception as error:
                if self.trouble is None:
                    self._log.warning("%s is away, what it is told waits in %s (%s)", type(error).__name__, self.folder, _line(error))
                self.trouble = _line(error)
                if self._closed.wait(pause):
                    return False
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            self.trouble = None
            return True


def _mend(path: Path) -> int:
    """The number of whole lines of a file; a last one that a kill cut short is removed."""
    if not path.exists():
        return 0
    whole = path.read_bytes()
    end = whole.rfind(b"\n") + 1
    os.truncate(path, end)
    return whole.count(b"\n", 0, end)


def _line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
