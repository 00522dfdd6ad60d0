"""In which fields two specs of one kind differ: what a comparison names when it refuses them."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from autosparse.models.specs.fields import fingerprint


def differences(first: Any, second: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Path and both values of every field that differs and is part of the identity, `("train.lr", 0.1, 0.05)`."""
    if fingerprint(first) == fingerprint(second):
        return
    if not (dataclasses.is_dataclass(first) and type(first) is type(second)):
        yield path, first, second
        return
    for field in dataclasses.fields(first):
        if field.metadata.get("identity", True):
            here = f"{path}.{field.name}" if path else field.name
            yield from differences(getattr(first, field.name), getattr(second, field.name), here)
