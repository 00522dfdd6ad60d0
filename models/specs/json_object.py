"""A JSON object as a value: what a field holds whose names are somebody else's, such as the keywords of a factory."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from autosparse.models.errors import not_allowed

ALLOWED = "a JSON object: text to numbers, text, true, false, null, lists and objects"


class JsonObject(Mapping[str, Any]):
    """Immutable and hashable. Two are equal where they are the same JSON, in whatever order: 3 and 3.0 differ, as they do to a function."""

    __slots__ = ("text",)

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self.text = json.dumps(dict(values or {}), sort_keys=True, allow_nan=False)

    @classmethod
    def of(cls, field: str, values: Any) -> "JsonObject":
        """The object; raises SpecError, which names `field`, for anything that JSON cannot say."""
        if isinstance(values, cls):
            return values
        if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
            raise not_allowed(field, values, ALLOWED)
        try:
            return cls(values)
        except (TypeError, ValueError, RecursionError) as error:
            raise not_allowed(field, values, f"{ALLOWED} ({error})") from None

    def __getitem__(self, key: str) -> Any:
        return json.loads(self.text)[key]  # a copy: lists and objects inside stay as they are

    def __iter__(self) -> Iterator[str]:
        return iter(json.loads(self.text))

    def __len__(self) -> int:
        return len(json.loads(self.text))

    def __eq__(self, other: object) -> bool:
        return self.text == other.text if isinstance(other, JsonObject) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return self.text

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
        made = {"type": "no-info", "function": lambda values: cls.of("object", values)}
        said = {"type": "function-plain", "function": dict}
        return {"type": "function-after", "function": made, "schema": handler(Mapping[str, Any]), "serialization": said}


NOTHING = JsonObject()
