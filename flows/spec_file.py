"""A whole spec in a file, YAML or JSON: what `run --spec` and `validate --spec` read, and `autosparse init` writes.

YAML is read by the rules of its version 1.2: `1e-3` is a number, `true` and `false` alone are booleans, `no`, `on` and dates are texts.
A key that is there twice is refused, in JSON too. Every error is one line that begins with the file.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import yaml

from autosparse.models.errors import SpecError, not_allowed
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import from_plain, override
from autosparse.storage.addresses import is_local
from autosparse.tasks.checks.preflight import data_specs

ENDINGS = (".yaml", ".yml", ".json")
LARGEST = 200_000  # bytes of a file, and values in it once every alias is written out
NULL, BOOL, INT, FLOAT, STR, SEQ, MAP = (f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map"))
KINDS = (NULL, BOOL, STR, SEQ, MAP, None)  # None says what a tag is not known
FIELDS = "the fields of a spec, as `autosparse recipes NAME` or `autosparse init` writes them"
SIGNS = [*"-+.0123456789"]
CORE = {  # with the signs that a scalar begins with: https://yaml.org/spec/1.2.2/#103-core-schema, without octal and hexadecimal numbers
    NULL: ("null|Null|NULL|~|", [*"nN~", ""]),
    BOOL: ("true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    INT: ("[-+]?[0-9]+", SIGNS),
    FLOAT: (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", SIGNS),
}


def spec_in(file: Path) -> ExperimentSpec:
    """The spec in a file; relative paths of data are seen from its folder. Raises SpecError, a line per error."""
    if file.suffix.lower() not in ENDINGS:
        raise not_allowed("--spec", str(file), f"a file that ends in {', '.join(ENDINGS)}")
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST + 1)
    except OSError as error:
        raise not_allowed("--spec", str(file), f"a file that can be read ({error.strerror or error})") from None
    if len(content) > LARGEST:
        raise SpecError(f"{file}: more than {LARGEST:,} bytes are not allowed; allowed: {FIELDS}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"{file}: byte {error.start} is not UTF-8; allowed: text in UTF-8") from None
    return spec_of(text, file)


def spec_of(text: str, file: Path) -> ExperimentSpec:
    """The spec in the text of `file`, as `spec_in`."""
    plain = _plain(text, file)
    if plain is None:
        raise SpecError(f"{file}: nothing in it; allowed: {FIELDS}")
    if not isinstance(plain, dict):
        raise SpecError(f"{file}: a {type(plain).__name__} is not allowed; allowed: {FIELDS}")
    try:
        return absolute_paths(from_plain(ExperimentSpec, plain), file.absolute().parent)
    except SpecError as error:
        raise SpecError("\n".join(f"{file}: {line}" for line in str(error).splitlines())) from None


def absolute_paths(spec: ExperimentSpec, folder: Path) -> ExperimentSpec:
    """Relative paths of data sets as seen from `folder`: workers do not share the current one."""
    changes = {
        f"{field}.path": str((folder / Path(data.path).expanduser()).resolve())
        for field, data in data_specs(spec)
        if data.path and is_local(data.path)
    }
    return override(spec, changes)


def _plain(text: str, file: Path) -> Any:
    try:
        if file.suffix.lower() == ".json":
            return json.loads(text, object_pairs_hook=_once) if text.strip() else None
        loader = _Loader(text)
        try:
            plain = loader.get_single_data()
        finally:
            loader.dispose()
        if len(list(islice(_values(plain), LARGEST))) == LARGEST:
            raise SpecError(f"more than {LARGEST:,} values are not allowed; allowed: {FIELDS}")
        return plain
    except json.JSONDecodeError as error:
        raise SpecError(f"{file}:{error.lineno}: not JSON ({error.msg})") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        why = " ".join(filter(None, (error.context, error.problem)))
        raise SpecError(f"{file}:{mark.line + 1 if mark else 1}: not YAML ({_one_line(why)})") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{file}: not YAML ({_one_line(str(error))})") from None
    except RecursionError:
        raise SpecError(f"{file}: values within values without end; allowed: {FIELDS}") from None
    except (ValueError, KeyError) as error:  # ours, a number of thousands of digits, `!!bool maybe`
        raise SpecError(f"{file}: {_one_line(str(error))}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise SpecError(f"{name!r} is there twice; allowed: once")
        found[name] = value
    return found


def _values(plain: Any) -> Iterator[Any]:
    yield plain
    for one in plain.values() if isinstance(plain, dict) else plain if isinstance(plain, list) else ():
        yield from _values(one)


def _one_line(text: str) -> str:
    return " ".join(text.split())


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2 and without duplicate keys."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}
    yaml_constructors: ClassVar[dict[Any, Any]] = {tag: make for tag, make in yaml.SafeLoader.yaml_constructors.items() if tag in KINDS}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Raises MarkedYAMLError for a key that is no text, and for one that is there twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != STR:
                name = key.value if isinstance(key, yaml.ScalarNode) else key.id
                raise yaml.MarkedYAMLError(problem=f"{name!r} is no name of a field", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is there twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(re.sub(r"\.(?=[in])", "", loader.construct_scalar(node).lower()))  # Python has no dot in .inf and .nan


for _tag, (_pattern, _first) in CORE.items():
    _Loader.add_implicit_resolver(_tag, re.compile(f"({_pattern})\\Z"), _first)
# 1.1 has octal, binary and base-60 numbers, and underscores in them; 1.2 has none of these
_Loader.add_constructor(INT, _int)
_Loader.add_constructor(FLOAT, _float)
