"""Networks of one's own: `package.module:factory`, anything that can be imported and called."""

import pkgutil
from collections.abc import Callable
from typing import Any

from autosparse.models.errors import not_allowed

ALLOWED = "package.module:factory, importable and callable"


def import_factory(name: str) -> Callable[..., Any]:
    """The object that `name` points to. Raises SpecError when it cannot be imported, is not there or cannot be called."""
    try:
        factory = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise not_allowed("network.name", name, f"{ALLOWED} ({reason})") from error
    if not callable(factory):
        raise not_allowed("network.name", name, f"{ALLOWED} (it is a {type(factory).__name__})")
    return factory
