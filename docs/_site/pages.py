"""Pages of the site that are made from the code, and links that leave the folder of the docs. MkDocs calls the functions named `on_...`."""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import autosparse
from autosparse.flows.cli import app
from autosparse.flows.init.comments import COMMENTS
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import allowed

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"CHANGELOG.md": "changelog.md", "README.md": "index.md"}  # what has a page of the site
REPORTS = ("arm", "scoring", "round")  # schemas/NAME.json; tests/pipeline holds what runs write against them
LINK = re.compile(r"\[([^\]]*)\]\(((?:\.\./)+)([^)#]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    made = {
        "changelog.md": (ROOT / "CHANGELOG.md").read_text().replace("](docs/", "]("),
        "reference/command-line.md": command_line(),
        "reference/python.md": python(),
        "reference/spec.md": spec(),
        "reference/reports.md": reports(),
    }
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A link to a file of the repository that is no page of the site is shown as its path."""
    folder = Path("docs") / page.file.src_uri

    def shown(found: re.Match[str]) -> str:
        words, up, path, anchor = found.groups()
        levels = up.count("../") - (len(folder.parents) - 2)
        if levels < 1:
            return found.group()  # another page of the site
        if path in ELSEWHERE:
            return f"[{words}]({'../' * (up.count('../') - 1)}{ELSEWHERE[path]}{anchor or ''})"
        assert (ROOT / path).exists(), f"{page.file.src_uri}: {path} is not there"
        return words if words.strip("`") == path else f"{words} (`{path}`)"

    return LINK.sub(shown, markdown)


def command_line() -> str:
    """Every command with its options, out of the parser."""
    text = app.generate_docs(max_heading_level=6)
    text = re.sub(r"## Table of Contents\n.*?(?=\n\*\*Commands)", "", text, flags=re.DOTALL)
    text = re.sub(r"\[@", r"\\[@", text)
    return text.replace("# autosparse\n", "# Command line\n\nMade from the parser.\n", 1)


def python() -> str:
    """What `import autosparse` has, out of the docstrings."""
    parts = "\n".join(f"::: {place}.{name}\n" for name, place in sorted(autosparse.PLACES.items(), key=lambda pair: pair[0].lower()))
    return f"# Python\n\n`import autosparse` has these names. Examples: [your own network in Python](../library.md).\n\n{parts}"


def spec() -> str:
    """Every field of a spec: what it means, what it allows, its default."""
    head = "`--set` and `autosparse.yaml` name a field by its path, as `fanout.train.lr`. A field without a default stands in every spec."
    return f"# Fields of a spec\n\n{head}\n" + "\n".join(section(path, kind) for path, kind in parts("", ExperimentSpec))


def reports() -> str:
    """The fields of the reports that a run leaves, out of their JSON schemas."""
    head = (
        "A step of a run leaves `report.json` in the storage, written last. These are the reports that people read by program; "
        "`autosparse show RUN --json` has their figures in one."
    )
    kinds = [json.loads((ROOT / f"docs/schemas/{name}.json").read_text()) for name in REPORTS]
    links = ", ".join(f"[{name}](../schemas/{name}.json)" for name in REPORTS)
    tables = "\n".join(f"\n## {kind['title']}\n\n{kind['description']}\n\n{fields_of(kind)}" for kind in kinds)
    return f"# Reports\n\n{head} As JSON schemas: {links}.\n{tables}"


def fields_of(schema: dict[str, Any]) -> str:
    """The properties of a schema as a table; those of objects within it by their path."""
    lines = ["| field | type | always there | what it is |", "|---|---|---|---|"]
    for path, field, needed in properties("", schema):
        kinds = field.get("type", "text" if "enum" in field else "")
        kind = " or ".join(kinds) if isinstance(kinds, list) else kinds
        lines.append(f"| `{path}` | {kind} | {'yes' if needed else ''} | {cell(field.get('description', ''))} |")
    return "\n".join(lines) + "\n"


def properties(path: str, schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Path, schema and whether it is always there, of each property and of those within it and within the items of its lists."""
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}".lstrip(".")
        yield here, field, name in schema.get("required", ())
        yield from properties(here, field)
        yield from properties(f"{here}[]", field.get("items", {}))


def parts(path: str, kind: type) -> Iterator[tuple[str, type]]:
    """A class of specs and those within it, by the path of their fields."""
    yield path, kind
    for name, hint in get_type_hints(kind).items():
        for inner in specs_in(hint):
            yield from parts(f"{path}.{name}".lstrip("."), inner)


def specs_in(hint: Any) -> list[type]:
    """Classes of specs in an annotation, those in tuples and unions too."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and hint in COMMENTS:
        return [hint]
    return list(dict.fromkeys(found for part in get_args(hint) for found in specs_in(part)))


def section(path: str, kind: type) -> str:
    """One class of specs as a table."""
    hints = get_type_hints(kind, include_extras=True)
    rows = [
        f"| `{one.name}` | {cell(COMMENTS[kind][one.name])} | {cell(values(hints[one.name]))} | {default(one)} |"
        for one in dataclasses.fields(kind)
    ]
    title = f"`{path}`" if path else "A spec"
    return "\n".join((f"\n## {title}\n", "| field | what it means | allowed | default |", "|---|---|---|---|", *rows, ""))


def values(hint: Any) -> str:
    """What a field may hold; a part of the spec has a table of its own."""
    inner = specs_in(hint)
    return ("a list of those below" if "tuple" in str(hint) else "as below") if inner else allowed(hint)


def cell(text: str) -> str:
    """Text in a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def default(field: "dataclasses.Field[Any]") -> str:
    """The default of a field as JSON; empty where it has none, a word where it is a whole part, or may be left out as one."""
    if field.default_factory is not dataclasses.MISSING:
        return "none"
    value = field.default
    if value is dataclasses.MISSING:
        return ""
    return "its own defaults" if dataclasses.is_dataclass(value) else f"`{cell(json.dumps(value, default=dict))}`"
