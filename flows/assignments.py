"""Options that several commands have: `NAME=VALUE`, as `--set` of a spec and `--keyword` of a factory, and `--json`."""

import json
import re
from typing import Annotated, Any

from cyclopts import Parameter

from autosparse.models.errors import not_allowed

SpecChanges = Annotated[
    tuple[str, ...], Parameter(name="--set", negative="", help="a field of the spec, e.g. irp.rounds=12; may be repeated")
]
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


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        if not (text.startswith("[") and text.endswith("]")) or set(text) & set('"{'):
            return text
        return [_value(part.strip()) for part in re.split(r",(?![^()]*\))", text[1:-1])]  # not at commas within brackets
