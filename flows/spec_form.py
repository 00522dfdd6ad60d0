"""The parameters of the deployment as Prefect's page and its server see them: JSON schemas with titles, ranges and a word on each field."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from autosparse.flows.init.comments import COMMENTS
from autosparse.flows.recipes import RECIPES
from autosparse.models.imported import NAME
from autosparse.models.specs.experiment import ExperimentSpec

Schema = dict[str, Any]
SHOWN = {kind.__name__: words for kind, words in COMMENTS.items()}
NOTHING: Schema = {"type": "null", "title": "none"}


@dataclass(frozen=True)
class Form:
    """Stands in an annotation for the JSON schema of a parameter, which `make` gives."""

    make: Any

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> Schema:
        return self.make()


def recipe_form() -> Schema:
    """A registered recipe to choose, or one of one's own to type."""
    return {
        "anyOf": [
            {"title": "registered", "type": "string", "enum": list(RECIPES)},
            {"title": "package.module:function", "type": "string", "pattern": f"^{NAME}$"},
            NOTHING,
        ]
    }


def changes_form() -> Schema:
    """Lines as behind `--set`."""
    return {"type": "array", "items": {"type": "string", "title": "FIELD=VALUE", "pattern": r"^[A-Za-z_][\w.]*="}}


def spec_form() -> Schema:
    """A whole spec or a part of one: no field is required, and none is filled in, for the recipe has the others."""
    schema = TypeAdapter(ExperimentSpec).json_schema(ref_template="{model}")
    definitions = schema.pop("$defs")
    return {"anyOf": [_partial({**schema, "title": "ExperimentSpec"}, definitions), NOTHING]}


def _partial(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """The schema of a spec without `required` and defaults, down to its lists, whose items are whole."""
    schema, words = dict(_whole(schema, definitions, deep=False)), SHOWN.get(schema.get("title", ""), {})
    schema.pop("required", None)
    schema["description"] = schema.get("description", "").partition("\n")[0]
    properties = {}
    for name, given in schema.get("properties", {}).items():
        found = _whole(given, definitions, deep=False)
        inner = _partial(found, definitions) if found.get("type") == "object" and "properties" in found else _whole(given, definitions)
        usual = inner.pop("default", given.get("default"))
        said = words.get(name, "") + (f" (usually {json.dumps(usual)})" if isinstance(usual, str | int | float) else "")
        properties[name] = {**_unsaid(inner), "title": name} | ({"description": said} if said else {})
    return {**schema, "properties": properties}


def _unsaid(schema: Schema) -> Schema:
    """A field that Prefect's page sends as null until somebody chooses: it would send `false` for every switch, `{}` for every JSON box."""
    switch, box = schema.get("type") == "boolean", schema.get("type") == "object" and "properties" not in schema
    return {"anyOf": [{"type": "null", "title": "as it is"}, schema]} if switch or box else schema


def _whole(schema: Any, definitions: Mapping[str, Schema], *, deep: bool = True) -> Any:
    """The schema with what it refers to put in its place; only itself where not `deep`."""
    if isinstance(schema, list):
        return [_whole(one, definitions) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return _whole({**definitions[schema["$ref"]], **rest}, definitions, deep=deep)
    return {key: _whole(value, definitions) for key, value in schema.items()} if deep else dict(schema)
