"""A person's own modules, named `package.module:object`: found where the person stands, by every command and on every worker."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAME = re.compile(r"([A-Za-z_]\w*)[\w.]*:[A-Za-z_][\w.]*")


def add(folder: Path | None) -> None:
    """Have modules of `folder` found; None = there is no such folder.

    It goes last: a file `queue.py` or a package `tests` that lies there must not stand in for one of Python's or of a library's.
    """
    if folder and str(folder) not in sys.path:
        sys.path.append(str(folder))


def named(folder: Path | None, plain: Any) -> Path | None:
    """`folder` where a spec, as plain data, names something that lies there; else None: nothing of it has to travel."""
    if folder is None:
        return None
    tops = {found[1] for text in _texts(plain) if (found := NAME.match(text))}
    return folder if any((folder / top).is_dir() or (folder / f"{top}.py").is_file() for top in tops) else None


def names_any(plain: Any) -> bool:
    """Whether inputs of a job, as plain data, name an object from outside."""
    return any(NAME.fullmatch(text) for text in _texts(plain))


def _texts(plain: Any) -> Iterator[str]:
    if isinstance(plain, str):
        yield plain
    elif isinstance(plain, dict | list | tuple):
        for one in plain.values() if isinstance(plain, dict) else plain:
            yield from _texts(one)
