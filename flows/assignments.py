"""Options of several commands: a recipe or a file to begin from, `NAME=VALUE` as of `--set` and `--keyword`, `--json`."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from autosparse.models.errors import not_allowed

RecipeName = Annotated[
    str | None,
    Parameter(help="Which spec to begin from: a recipe by name, or package.module:function, which returns one; demo by default."),
]
SpecFile = Annotated[Path | None, Parameter(help="Or the file with a whole spec, YAML or JSON (`autosparse init` writes one).")]
SpecChanges = Annotated[
    tuple[str, ...], Parameter(name="--set", negative="", help="a field of the spec, e.g. irp.rounds=12; may be repeated")
]
Flag = Annotated[bool, Parameter(negative="")]
Json = Annotated[bool, Parameter(name="--json", negative="")]


def parse_changes(texts: tuple[str, ...], option: str = "--set", example: str = "FIELD=VALUE, e.g. irp.rounds=12") -> dict[str, Any]:
    """`("irp.rounds=12",)` as `{"irp.rounds": 12}`: JSON where it parses, `[snip,grda(c=0.05,mu=0.8)]` as a list, else text.

    Raises SpecError.
    """
    changes = {}
    for text in texts:
        path, sign, value = text.partition("=")
        if not sign or not path:
            raise not_allowed(option, text, example)
        try:
            changes[path] = _value(value)
        except RecursionError:
            raise not_allowed(option, text, "a value that is not nested so deep") from None
    return changes


def parse_grid(texts: tuple[str, ...], option: str = "--over") -> dict[str, list[Any]]:
    """`("irp.train.lr=0.05,0.1",)` as `{"irp.train.lr": [0.05, 0.1]}`: two or more values each, separated by commas outside brackets.

    Raises SpecError.
    """
    grid: dict[str, list[Any]] = {}
    for text in texts:
        path, sign, values = text.partition("=")
        if not sign or not path:
            raise not_allowed(option, text, "FIELD=VALUE,VALUE, e.g. fanout.train.lr=0.05,0.1")
        if path in grid:
            raise not_allowed(option, path, "each field once")
        grid[path] = [parse_changes((f"{path}={value}",), option)[path] for value in _apart(values)]
        if len(grid[path]) < 2 or any(value in grid[path][:index] for index, value in enumerate(grid[path])):
            raise not_allowed(option, text, "two or more values, no two the same; lists as [snip],[snip,scorer]")
    return grid


def _apart(text: str) -> list[str]:
    """The parts between commas that stand in no bracket and no quotes."""
    parts, depth, quoted = [""], 0, False
    for sign in text:
        quoted ^= sign == '"'
        depth += 0 if quoted else (sign in "([{") - (sign in ")]}")
        if sign == "," and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        if not (text.startswith("[") and text.endswith("]")) or set(text) & set('"{'):
            return text
        return [_value(part.strip()) for part in re.split(r",(?![^()]*\))", text[1:-1])]  # not at commas within brackets
