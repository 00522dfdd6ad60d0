"""What every spec is made of: checks of its fields (rules.py), reading from plain data, overrides, and the fingerprint."""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from autosparse.models.errors import SpecError, not_allowed, unknown_name
from autosparse.models.specs.json_object import JsonObject

PLAIN = {bool: "true | false", int: "int", float: "number", str: "text"}


def check_fields(spec: Any) -> None:
    """Check each field of a spec against its type and declaration. Raises SpecError, a line per field: value, what is allowed."""
    hints = get_type_hints(type(spec), include_extras=True)
    with _Collected() as bad:
        for field in dataclasses.fields(spec):
            with bad.one():
                _check(field.name, getattr(spec, field.name), hints[field.name])


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """Base of all specs: unknown keys are refused, each field is checked against its declaration."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def settle(cls, data: dict[str, Any], named: Collection[str]) -> None:
        """Bring plain data in order, in place, after an override of the dotted paths `named`: for specs whose fields hang together."""


class _Collected:
    """SpecErrors of several fields, raised as one with a line each: whoever mends a spec wants to see all of them."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def one(self, path: str = "") -> Iterator[None]:
        """Around one field; `path` is put before the lines of its errors."""
        try:
            yield
        except SpecError as error:
            self.lines += [f"{path}.{line}" if path else line for line in str(error).splitlines()]

    def __enter__(self) -> "_Collected":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None and self.lines:
            raise SpecError("\n".join(self.lines))


def _check(field: str, value: Any, hint: Any) -> None:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        _check(field, value, args[0])
        if value is not None:
            for rule in args[1:]:
                rule.check(field, value)
    elif origin in (Union, UnionType):
        if value is not None:
            _check(field, value, next(arg for arg in args if arg is not type(None)))
    elif origin is Literal:
        if value not in args:
            raise not_allowed(field, value, " | ".join(map(str, args)))
    elif origin is tuple:
        if not isinstance(value, tuple):
            raise not_allowed(field, value, "a list, such as [a,b] or [a]")
        for index, item in enumerate(value):
            _check(f"{field}[{index}]", item, args[0])
    elif not _is_a(value, hint):
        raise not_allowed(field, value, f"a value of type {hint.__name__}")


def _is_a(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) != float("inf") and value == value
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def from_plain(kind: Any, data: Any, path: str = "") -> Any:
    """Build the spec `kind` from JSON-like data; unknown keys and bad values are SpecErrors that name their path, a line each."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return from_plain(args[0], data, path)
    if origin in (Union, UnionType):
        return None if data is None else from_plain(next(arg for arg in args if arg is not type(None)), data, path)
    if origin is tuple and isinstance(data, list | tuple):
        items = []
        with _Collected() as bad:
            for index, item in enumerate(data):
                with bad.one():
                    items.append(from_plain(args[0], item, f"{path}.{index}"))
        return tuple(items)
    if kind is JsonObject:
        return JsonObject.of(path, data)
    if not dataclasses.is_dataclass(kind):
        return _number(data, path) if kind is float and _is_a(data, int) else data
    if not isinstance(data, Mapping):
        raise not_allowed(path or "spec", data, "an object with fields")
    with _Collected() as bad:
        values = _values(kind, data, path, bad)
    with _Collected() as bad, bad.one(path):
        return kind(**values)  # type: ignore[operator]


def _values(kind: Any, data: Mapping[str, Any], path: str, bad: _Collected) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values = {}
    for key, item in data.items():
        with bad.one():
            if key not in fields:
                raise unknown_name(_join(path, str(key)), str(key), fields)
            values[key] = from_plain(hints[key], item, _join(path, key))
    for name, field in fields.items():
        if name not in data and usual(field) is dataclasses.MISSING:
            bad.lines.append(f"{_join(path, name)}: missing; allowed: {allowed(hints[name])}")
    for name in values if bad.lines else ():  # else the spec checks them itself
        with bad.one(path):
            _check(name, values[name], hints[name])
    return values


def allowed(hint: Any) -> str:
    """What a field of this type may hold, in words: `int >= 1`, `none | shift`, `list of number > 0 and <= 1`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        known = [str(rule) for rule in args[1:]]
        return " ".join(known if args[0] is str or get_origin(args[0]) is tuple else [allowed(args[0]), *known])
    if origin in (Union, UnionType):
        return f"{allowed(next(arg for arg in args if arg is not type(None)))} or null"
    if origin is Literal:
        return " | ".join(map(str, args))
    if origin is tuple:
        return f"list of {allowed(args[0])}"
    if dataclasses.is_dataclass(hint):
        return f"an object with {', '.join(field.name for field in dataclasses.fields(hint))}"
    return PLAIN.get(hint, "any value")


def _number(data: int, path: str) -> float:
    try:
        return float(data)
    except OverflowError:
        raise not_allowed(path, data, "a number of at most 1.8e308") from None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def to_plain(spec: Any) -> Any:
    """The spec as JSON-like data: dicts, lists, numbers, strings."""
    return json.loads(json.dumps(dataclasses.asdict(spec), default=dict))


def override(spec: Any, changes: Mapping[str, Any]) -> Any:
    """A copy with dotted paths replaced: `{"irp.rounds": 12, "irp.networks.0.width": 16}`. Raises SpecError, a line per bad path."""
    data = to_plain(spec)
    with _Collected() as bad:
        for path, value in changes.items():
            with bad.one():
                _replace(data, path, value, type(spec))
        type(spec).settle(data, changes)
        with bad.one():
            spec = from_plain(type(spec), data)
    return spec


def _replace(data: Any, path: str, value: Any, kind: Any) -> None:
    node, *keys = data, *path.split(".")
    for key in keys[:-1]:
        node = _child(node, key, path)
        if node is None:
            raise not_allowed(path, value, f"a field of something that is set ({key} is not)")
    if not (isinstance(node, dict) and _is_open(kind, keys[:-1])):
        _child(node, keys[-1], path)
    node[int(keys[-1]) if isinstance(node, list) else keys[-1]] = value


def _is_open(kind: Any, keys: list[str]) -> bool:
    """Whether what stands at the path `keys` of a spec of that kind is, or is part of, a JSON object, which takes any name."""
    while get_origin(kind) in (Annotated, Union, UnionType):
        kind = next(arg for arg in get_args(kind) if arg is not type(None))
    if kind is JsonObject or not keys:
        return kind is JsonObject
    inner = get_args(kind)[0] if get_origin(kind) is tuple else get_type_hints(kind, include_extras=True).get(keys[0])
    return _is_open(inner, keys[1:])


def _child(node: Any, key: str, path: str) -> Any:
    known = [str(index) for index in range(len(node))] if isinstance(node, list) else list(node) if isinstance(node, dict) else []
    if key not in known:
        raise unknown_name(path, key, known)
    return node[int(key)] if isinstance(node, list) else node[key]


def fingerprint(spec: Any) -> str:
    """Twelve hex digits that name a result: SHA-256 over the sorted fields that differ from their default.

    Fields marked `metadata={"identity": False}` say where or how fast, not what, and are left out. A new field with a
    default that changes nothing keeps the names of all old results.
    """
    return hashlib.sha256(json.dumps(_identity(spec), sort_keys=True).encode()).hexdigest()[:12]


def _identity(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _identity(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.metadata.get("identity", True) and _identity(getattr(value, field.name)) != _identity(_unsaid(field))
        }
    if isinstance(value, JsonObject):
        return dict(value)
    return [_identity(item) for item in value] if isinstance(value, tuple) else value


def _unsaid(field: dataclasses.Field[Any]) -> Any:
    """The value that leaves no trace in a fingerprint: the default, or what it was before a field learned to choose for itself."""
    return field.metadata.get("unsaid", usual(field))


def usual(field: dataclasses.Field[Any]) -> Any:
    """What a field holds that is left out; `dataclasses.MISSING` where it cannot be."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
