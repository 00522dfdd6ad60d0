"""A spec as YAML that a person reads: what was chosen with a comment each, what is as usual in one commented block at the end."""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

from autosparse.flows.init.comments import COMMENTS
from autosparse.models.errors import SpecError
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import allowed, usual

PLAIN = re.compile(r"(\.{0,2}/|~/)?[A-Za-z_][\w./-]*")  # needs no quotes in YAML
READ_OTHERWISE = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}  # by one of YAML's versions
COLUMN = 40  # of the comments
JOBS = "; the fields of a job go into scorer.job and fanout.job as well"
LONG = 60  # characters of allowed values that are left out: the error about a wrong one has them
TELLING = re.compile(r" \| |[<>]")
TRAIN = "train"  # the one part that is often the same twice: written once, and named the second time


class _Text:
    """The lines of a file; `usual` has what is at its default, each field of a kind of spec once."""

    def __init__(self) -> None:
        self.usual: dict[tuple[type, str], str] = {}
        self.trains: list[Any] = []

    def block(self, spec: Any, path: str) -> Iterator[str]:
        """The lines of the fields of a spec, `path` ending in a dot or empty."""
        hints = get_type_hints(type(spec), include_extras=True)
        for field in dataclasses.fields(spec):
            value, where = getattr(spec, field.name), path + field.name
            said = _said(COMMENTS[type(spec)][field.name], hints[field.name])
            if not _as_usual(spec, field):
                yield from self.field(where, value, said)
            elif field.default_factory is not dataclasses.MISSING:
                pass  # a part that is left out as a whole
            elif dataclasses.is_dataclass(value):
                list(self.block(value, f"{where}."))
            else:
                self.usual.setdefault((type(spec), field.name), _beside(f"{where}: {_scalar(field.default)}", said))

    def field(self, path: str, value: Any, said: str) -> Iterator[str]:
        """The lines of one field that is written."""
        name, indent = path.rpartition(".")[2], "  " * path.count(".")
        if not indent:
            yield ""
        if name == TRAIN and value in self.trains:
            yield _beside(f"{indent}{name}: *train", f"{said}: as above")
        elif dataclasses.is_dataclass(value):
            anchor = " &train" if name == TRAIN and not self.trains else ""
            self.trains += [value] if anchor else []
            yield _beside(f"{indent}{name}:{anchor}", said)
            yield from self.block(value, f"{path}.")
        elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            yield _beside(f"{indent}{name}:", said)
            for one in value:
                first, *more = self.block(one, f"{path}.")
                yield f"{indent}- {first.lstrip()}"
                yield from more
        else:
            yield _beside(f"{indent}{name}: {_scalar(value)}", said)


def written(spec: ExperimentSpec, head: str) -> str:
    """The text of a file that `autosparse.flows.spec_file` reads as `spec`; `head` is a comment at its beginning."""
    text = _Text()
    lines = list(text.block(spec, ""))
    rest = [
        "",
        f"Left out above, because it is as usual{JOBS if spec.irp.seeds else ''}:",
        *text.usual.values(),
    ]
    return "\n".join([*_comment(head.splitlines()), *lines, *_comment(rest)]) + "\n"


def _as_usual(spec: Any, field: dataclasses.Field[Any]) -> bool:
    """Whether the field would be the same left out: it is at its default, or at what its default turned into."""
    default = usual(field)
    if default is dataclasses.MISSING or getattr(spec, field.name) == default:
        return default is not dataclasses.MISSING
    try:
        return dataclasses.replace(spec, **{field.name: default}) == spec
    except SpecError:  # other fields ask for its value
        return False


def _comment(lines: list[str]) -> list[str]:
    return [f"# {line}" if line else "" for line in lines]


def _beside(text: str, said: str) -> str:
    return f"{text:{COLUMN}}# {said}" if len(text) < COLUMN else f"{text}  # {said}"


def _said(words: str, hint: Any) -> str:
    values = allowed(hint)
    return f"{words} [{values}]" if TELLING.search(values) and len(values) <= LONG else words


def _scalar(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in READ_OTHERWISE:
        return value
    return json.dumps(dict(value) if isinstance(value, Mapping) else value, ensure_ascii=False)  # JSON is YAML
