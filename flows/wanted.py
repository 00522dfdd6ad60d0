"""What a submitted run asks for: a recipe, a spec, or both, and changes on top, put together in this order."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from autosparse.flows.assignments import parse_changes
from autosparse.flows.recipes import recipe as recipe_spec
from autosparse.models.errors import not_allowed
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import from_plain, override, usual

USUAL = "demo"  # where nothing else is asked for
NEEDED = [field.name for field in dataclasses.fields(ExperimentSpec) if usual(field) is dataclasses.MISSING]


def wanted(recipe: str | None, spec: ExperimentSpec | Mapping[str, Any] | None, changes: Sequence[str] = ()) -> ExperimentSpec:
    """The spec of a run. Raises SpecError, a line per bad field.

    Without a recipe `spec` is whole. With one it names what differs: its fields replace the recipe's, lists as a whole, and the recipe has
    the others. `changes` are FIELD=VALUE, as behind `--set`, and have the last word. Nothing at all is the demo.
    """
    if spec is None:
        base = recipe_spec(recipe or USUAL)
    elif isinstance(spec, ExperimentSpec):
        base = spec
    elif not isinstance(spec, Mapping):
        raise not_allowed("spec", spec, "an object with fields")
    elif recipe is not None:
        base = override(recipe_spec(recipe), leaves(ExperimentSpec, chosen(ExperimentSpec, spec)))
    elif missing := [name for name in NEEDED if name not in spec]:
        raise not_allowed("spec", [*spec], f"a whole spec, which has {', '.join(missing)} as well, or a recipe beside it")
    else:
        base = from_plain(ExperimentSpec, chosen(ExperimentSpec, spec))
    return override(base, parse_changes(tuple(changes), "set")) if changes else base


def chosen(kind: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    """What somebody chose in the form: null in a field that cannot be null is a switch, or a box, that was left as it is."""
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for name, value in data.items():
        inner = plain_type(hints.get(name))
        if value is None and name in hints and type(None) not in get_args(hints[name]):
            continue
        found[name] = chosen(inner, value) if dataclasses.is_dataclass(inner) and isinstance(value, Mapping) else value
    return found


def leaves(kind: Any, data: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """`{"irp": {"rounds": 3}}` as `{"irp.rounds": 3}`: down to what is no spec of its own; lists and JSON objects are whole."""
    hints = get_type_hints(kind, include_extras=True)
    found: dict[str, Any] = {}
    for name, value in data.items():
        where, inner = f"{path}.{name}" if path else str(name), plain_type(hints.get(name))
        if dataclasses.is_dataclass(inner) and isinstance(value, Mapping):
            found |= leaves(inner, value, where)
        else:
            found[where] = value
    return found


def plain_type(hint: Any) -> Any:
    """A type without what says that it may be null, and without what it allows."""
    while get_origin(hint) in (Annotated, Union, UnionType):
        hint = next(one for one in get_args(hint) if one is not type(None))
    return hint
