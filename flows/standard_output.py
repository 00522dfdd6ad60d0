"""Standard output that survives its reader: `autosparse show RUN | head` is quiet, and a run whose reader has left goes on."""

import io
import os
import sys
from typing import Any


class _Raw(io.FileIO):
    """A file descriptor that becomes /dev/null once nobody reads it any more."""

    def write(self, content: Any) -> Any:
        try:
            return super().write(content)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(memoryview(content))


def outlive_reader() -> None:
    """Have `sys.stdout` drop what is written after its reader has left; only where it is still the one that Python began with."""
    stream = sys.stdout
    if stream is not sys.__stdout__ or not isinstance(stream, io.TextIOWrapper):
        return
    stream.flush()
    raw = _Raw(stream.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
