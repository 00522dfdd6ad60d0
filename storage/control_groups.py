"""What control groups of either version say about this process: a container or a batch system sets its limits there."""

from collections.abc import Iterator
from pathlib import Path


def limits(root: Path, folders: tuple[str, ...], *names: str) -> Iterator[tuple[str, ...]]:
    """The texts of the files `names` in every group above this process that has all of them, below each of `folders`.

    Those of a container are at the top of what it sees, so that both the process's own path and the top are looked at.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for folder in folders:
        top = root / folder
        groups = {top / line.split(":", 2)[2].lstrip("/") for line in lines if line.count(":") > 1}
        for group in {place for one in (top, *groups) for place in (one, *one.parents) if place.is_relative_to(top)}:
            try:
                yield tuple((group / name).read_text().strip() for name in names)
            except OSError:  # no such group, or no such limit
                continue
