"""Settings as text: `grda(c=0.005,mu=0.65)` names a method and one level of it."""

import dataclasses
import json
import re
from typing import Any

from autosparse.models.errors import SpecError, not_allowed
from autosparse.models.imported import NAME
from autosparse.models.specs.fields import Spec, from_plain, to_plain

TEXT = re.compile(rf"([a-z][a-z0-9_]*|{NAME})(?:\((.*)\))?")


def split(text: str) -> tuple[str, str | None]:
    """The name and what stands in its brackets, None without any. Raises SpecError where the text has another shape."""
    found = TEXT.fullmatch(text)
    if not found:
        raise not_allowed("method", text, "name or name(field=value,...)")
    return found.group(1), found.group(2)


def settings_in(name: str, inside: str, kind: type[Spec]) -> Any:
    """The settings of a `kind` that are written in the brackets behind `name`. Raises SpecError: names, fields, values."""
    values: dict[str, Any] = {}
    for entry in filter(None, (part.strip() for part in inside.split(","))):
        key, sign, value = entry.partition("=")
        if not sign or key in values:
            raise not_allowed("method", f"{name}({inside})", "field=value, each field once, with commas between")
        values[key.strip()] = _plain(value.strip())
    try:
        return from_plain(kind, values)
    except SpecError as error:
        raise SpecError(f"{name}.{error}") from None


def level_name(name: str, settings: Spec) -> str:
    """The text that reads as exactly these settings; only fields that are not at their default are named."""
    usual = {field.name: field.default for field in dataclasses.fields(settings)}
    changed = {key: value for key, value in to_plain(settings).items() if value != usual[key]}
    return f"{name}({','.join(f'{key}={_text(value)}' for key, value in changed.items())})"


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        try:
            return float(text)  # .05, which JSON does not know
        except ValueError:
            return text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value).replace("e+", "e")  # + is the sign of controls
