"""The end of every error about an artifact that is damaged or gone: the command after which the same run makes it again."""

from autosparse.models.errors import DataError
from autosparse.storage import paths


def damaged(where: object, why: str) -> DataError:
    """The error about what lies at an address, or in a file, and is not as it was written."""
    return DataError(f"{where}: {why}{made_again(str(where))}")


def made_again(where: str) -> str:
    """What to do about an address of a run, as the last part of a line; "" where it is no run's.

    `autosparse rm --step` knows which step a file belongs to and what was built on it. The record of a run is made again with all of it.
    """
    found = paths.within_run(where)
    if not found:
        return ""
    name, key = found
    step = "" if key == paths.RunPaths(name).within(paths.RunPaths(name).spec) else f" --step {key}"
    return f"; the same run makes it again after: autosparse rm {name}{step} --delete"
