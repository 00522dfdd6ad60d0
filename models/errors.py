"""The errors autosparse raises on purpose.

    AutosparseError
    |-- SpecError            a field of a spec has a value that is not allowed (also a ValueError)
    |-- DataError            an image file, Parquet file, manifest or scorer cannot be used as it is
    |-- LeakError            a scorer was judged, or is to be tested, on something it was trained on
    |-- CapacityError        a job asks for more than the cluster has
    |-- DivergedError        the loss became NaN or infinite
    |-- CollapseError        a layer has no weight left
    |-- ConflictError        something of that name exists with other content
    |-- JobError             a job failed for good, after its restarts
    |-- TrackingError        MLflow stayed away; what it is to be told waits for `autosparse sync`
    `-- ServiceError         a service could not be reached; the only kind that is retried

Every message is one line: what, which value, what is allowed.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class AutosparseError(Exception):
    """Base of every error that autosparse raises on purpose."""


class SpecError(AutosparseError, ValueError):
    """A field of a spec has a value that is not allowed."""


class DataError(AutosparseError):
    """Stored data is missing, corrupt or of another version."""


class LeakError(AutosparseError):
    """A scorer was judged, or is to be tested, on something it was trained on or chosen by."""


class CapacityError(AutosparseError):
    """A job asks for more workers, CPUs or GPUs than the cluster has."""


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


def not_allowed(field: str, value: object, allowed: str) -> SpecError:
    """The one shape of a bad-input message."""
    return SpecError(f"{field}: {value!r} is not allowed; allowed: {allowed}")


def unknown_name(field: str, value: str, known: Iterable[str]) -> SpecError:
    """Bad name with a did-you-mean."""
    names = sorted(known)
    close = get_close_matches(value, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return SpecError(f"{field}: {value!r} is not known{hint}; known: {', '.join(names)}")
