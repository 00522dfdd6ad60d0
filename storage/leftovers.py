"""Writes that are under way or that nobody finished: dot-files beside their place, or multipart uploads of an S3 server."""

import re
from dataclasses import dataclass
from pathlib import Path

STAGED = re.compile(r"\.(.+)\.[0-9a-f]{32}")  # as `LocalStore` names what it writes


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """`key` was to be written; `name` is the file or the id of the upload. `started`: seconds since 1970, by the clock of the storage.

    `size`: bytes that lie there, 0 where the server does not say.
    """

    kind: str
    key: str
    name: str
    started: float
    size: int = 0


def staged_files(root: Path) -> list[Leftover]:
    """All staging files below a local root, those of other programs left out."""
    found = []
    for path in sorted(root.rglob(".*")):
        if (match := STAGED.fullmatch(path.name)) and path.is_file():
            state = path.stat()
            key = path.with_name(match[1]).relative_to(root).as_posix()
            found.append(Leftover(kind="staging file", key=key, name=path.name, started=state.st_mtime, size=state.st_size))
    return found
