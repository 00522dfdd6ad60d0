"""The errors autosparse raises on purpose.

    AutosparseError
    |-- SpecError            a field of a spec has a value that is not allowed (also a ValueError)
    |-- DataError            an image file, Parquet file, manifest or scorer cannot be used as it is
    |-- LeakError            a scorer was judged, or is to be tested, on something it was trained on
    |-- CapacityError        a job asks for more than the cluster has
    |-- MemoryLimitError     a job needs more memory than there is
    |-- DivergedError        the loss became NaN or infinite
    |-- CollapseError        a layer has no weight left
    |-- ConflictError        something of that name exists with other content
    |-- JobError             a job failed for good, after its restarts
    |-- TrackingError        MLflow stayed away; what it is to be told waits for `autosparse sync`
    `-- ServiceError         a service could not be reached; the only kind that is retried

Every message is one line per error: what, which value, what is allowed. A value that is shown is cut where it is long, and
never has the password of an address in it.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

SHOWN = 200  # characters of a value
LISTED = 100  # known names that fit into a line; of more the nearest are shown
COMPARED = 80  # of a name: finding a similar one takes the square of its length
CREDENTIALS = re.compile(r"(?<=://)[^/?#\s\"'<>]*@")


class AutosparseError(Exception):
    """Base of every error that autosparse raises on purpose; `details` is JSON for whoever wants more than the line."""

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.details = dict(details or {})


class SpecError(AutosparseError, ValueError):
    """A field of a spec has a value that is not allowed."""


class DataError(AutosparseError):
    """Stored data is missing, corrupt or of another version."""


class LeakError(AutosparseError):
    """A scorer was judged, or is to be tested, on something it was trained on or chosen by."""


class CapacityError(AutosparseError):
    """A job asks for more workers, CPUs or GPUs than the cluster has."""


class MemoryLimitError(AutosparseError):
    """A job needs more memory than its machine or its GPU has."""


class DivergedError(AutosparseError):
    """The training loss became NaN or infinite."""


class CollapseError(AutosparseError):
    """A mask leaves at least one layer without a weight."""


class ConflictError(AutosparseError):
    """Something of that name exists already with other content."""


class JobError(AutosparseError):
    """A job failed for good, after its restarts."""


class TrackingError(AutosparseError):
    """MLflow stayed away for longer than a run waits; nothing is lost."""


class ServiceError(AutosparseError):
    """A service (S3, MLflow, Prefect, Ray) could not be reached."""


def without_password(text: str) -> str:
    """A text with the credentials of every address in it replaced: `http://me:secret@host/x` becomes `http://***@host/x`."""
    return CREDENTIALS.sub("***@", text)


def not_allowed(field: str, value: object, allowed: str) -> SpecError:
    """The one shape of a bad-input message."""
    return SpecError(f"{_cut(field)}: {_shown(value)} is not allowed; allowed: {allowed}")


def unknown_name(field: str, value: str, known: Iterable[str]) -> SpecError:
    """Bad name with a did-you-mean."""
    names = sorted(known)
    close = get_close_matches(value[:COMPARED], names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    if len(names) > LISTED:
        near = get_close_matches(value[:COMPARED], names, n=10, cutoff=0)
        names = [*near, f"and {len(names) - len(near):,} more"]
    return SpecError(f"{_cut(field)}: {_shown(value)} is not known{hint}; known: {', '.join(names)}")


def _shown(value: object) -> str:
    return _cut(without_password(ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)))


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"
