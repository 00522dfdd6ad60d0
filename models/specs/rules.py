"""What a field of a spec allows, declared once: `Annotated[float, Range(above=0, most=1)]`.

The declaration is checked when the spec is built (fields.py) and appears in the JSON schema of the Prefect deployment, so a bad value is
refused at submit time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from autosparse.models.errors import CREDENTIALS, not_allowed, unknown_name, without_password


@dataclass(frozen=True, kw_only=True)
class Range:
    """A number within bounds: `above` and `below` are exclusive, `least` and `most` inclusive."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def check(self, field: str, value: Any) -> None:
        """Raise SpecError naming `field` unless `value` is within the bounds."""
        inside = (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )
        if not inside:
            raise not_allowed(field, value, str(self))

    def __str__(self) -> str:
        signs = ((">=", self.least), (">", self.above), ("<=", self.most), ("<", self.below))
        return " and ".join(f"{sign} {bound}" for sign, bound in signs if bound is not None)

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        names = {"minimum": self.least, "maximum": self.most, "exclusiveMinimum": self.above, "exclusiveMaximum": self.below}
        return dict(handler(core_schema)) | {key: bound for key, bound in names.items() if bound is not None}


Count = Annotated[int, Range(least=1)]


@dataclass(frozen=True)
class Known:
    """A name out of a registry, which is asked only when it is needed (registries import the specs)."""

    names: Callable[[], tuple[str, ...]]
    accepts: Callable[[str], bool] = lambda name: False  # open families such as `torchvision:NAME`
    pattern: str | None = None  # of an open family, for the JSON schema

    def check(self, field: str, value: Any) -> None:
        """Raise SpecError with a did-you-mean unless `value` is registered or of an open family."""
        names = self.names()
        if value not in names and not self.accepts(value):
            raise unknown_name(field, value, names)

    def __str__(self) -> str:
        return " | ".join((*self.names(), *(("package.module:object",) if self.pattern else ())))

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        schema = dict(handler(core_schema))
        listed = schema | {"enum": list(self.names())}
        return {"anyOf": [listed, schema | {"pattern": self.pattern}]} if self.pattern else listed


class WithoutCredentials:
    """An address that names no user and no password: a spec is written into reports, Prefect and MLflow as it is."""

    def check(self, field: str, value: str) -> None:
        """Raise SpecError naming `field`, and the address without them, where it has some."""
        if without_password(value) != value:
            raise not_allowed(field, value, str(self))

    def __str__(self) -> str:
        return "an address without credentials, which are read from the environment"

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        return dict(handler(core_schema)) | {"pattern": f"^(?!.*{CREDENTIALS.pattern})"}
