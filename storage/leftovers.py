"""Writes that are under way or that nobody finished: dot-files beside their place, or multipart uploads of an S3 server."""

import re
from dataclasses import dataclass
from pathlib import Path

STAGED = re.compile(r"\.(.+)\.[0-9a-f]{32}")  # as `LocalStore` names what it writes


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """`key` was to be written; `name` is the file or the id of the upload. `started`: seconds since 1970, by the clock of the storage."""

    kind: str
    key: str
    name: str
    started: float


def staged_files(root: Path) -> list[Leftover]:
    """All staging files below a local root, those of other programs left out."""
    found = []
    for path in sorted(root.rglob(".*")):
        if (match := STAGED.fullmatch(path.name)) and path.is_file():
            key = path.with_name(match[1]).relative_to(root).as_posix()
            found.append(Leftover(kind="staging file", key=key, name=path.name, started=path.stat().st_mtime))
    return found


def last_change(folder: Path) -> float:
    """When a file below a local folder was last written; 0 where there is none."""
    return max((path.stat().st_mtime for path in folder.rglob("*") if path.is_file()), default=0)
