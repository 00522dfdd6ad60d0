"""Objects from outside, named `package.module:object`: networks, criteria, methods and recipes that need no fork and no registration.

Whatever can be imported where the run works can be named. To import a module runs its code.
"""

import importlib
import inspect
import re
import sys
from functools import reduce
from typing import Any

from autosparse.models.errors import SHOWN, SpecError, not_allowed

NAME = r"[A-Za-z][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*"  # without the signs that separate the parts of an arm's name


def is_outside(name: str) -> bool:
    """Whether a name is written `package.module:object`."""
    return re.fullmatch(NAME, name) is not None


def import_object(field: str, name: str, allowed: str) -> Any:
    """The object that `name` points to.

    Raises SpecError, which names `field`, for a module that cannot be imported, whatever it raises, and for an object that is not in it.
    """
    module, _, path = name.partition(":")
    try:
        found = _imported(module)
    except (Exception, SystemExit) as error:
        raise refused(field, name, allowed, f"not importable: {said(error)}") from error
    try:
        return reduce(getattr, path.split("."), found)
    except Exception as error:
        raise refused(field, name, allowed, f"no such object: {said(error)}") from error


def _imported(module: str) -> Any:
    """The module; where its import runs it now, what that draws is the same in every process."""
    if module in sys.modules:
        return importlib.import_module(module)
    from autosparse.models import seeding  # and torch, which the command line's help has no need of

    with seeding.scoped(0, "import", module):
        return _run(module)


def _run(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        from autosparse.models.networks.torchvision_guard import (
            import_torchvision,
        )

        import_torchvision()  # it was built for another torch, and timm and others import it
        return importlib.import_module(module)


def check_callable(field: str, name: str, found: object, allowed: str) -> None:
    """Raise SpecError unless `found`, which `name` points to, can be called."""
    if not callable(found):
        raise refused(field, name, allowed, f"not callable: it is a {type(found).__name__}")


def check_call(field: str, name: str, found: Any, allowed: str, *arguments: Any, **keywords: Any) -> None:
    """Raise SpecError unless `found` can be called with these arguments; nothing is called."""
    check_callable(field, name, found, allowed)
    try:
        inspect.signature(found).bind(*arguments, **keywords)
    except (TypeError, ValueError) as error:  # ValueError: some callables written in C have no signature
        raise refused(field, name, allowed, f"wrong signature: {said(error)}") from None


def refused(field: str, name: str, allowed: str, why: str) -> SpecError:
    """The one line about a name from outside that will not do."""
    return not_allowed(field, name, f"{allowed} ({why})")


def said(error: BaseException) -> str:
    """The first line of an error, with its kind where that is not plain from where it came."""
    line = next(iter(str(error).splitlines()), "")[:SHOWN]
    plain = isinstance(error, ImportError | AttributeError | TypeError)
    return line if line and plain else f"{type(error).__name__}: {line}".removesuffix(": ")
