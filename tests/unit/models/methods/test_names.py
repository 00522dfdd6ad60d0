"""How a method of the fan-out is written."""

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from autosparse.models.errors import SpecError
from autosparse.models.methods import registry
from autosparse.models.methods.contract import Method, Parts, Settings
from autosparse.models.methods.registry import level_name, parse
from autosparse.models.specs.fields import Range


@dataclass(frozen=True, kw_only=True, slots=True)
class Levels(Settings):
    c: Annotated[float, Range(least=0)] = 0.005
    mu: float = 0.51
    prox: Literal["scalar", "group"] = "scalar"
    steps: int | None = None


@pytest.fixture(autouse=True)
def one_method(monkeypatch: pytest.MonkeyPatch) -> None:
    method = Method(
        settings=Levels, levels=(Levels(), Levels(mu=0.8)), by_density=False, parts=lambda setup, settings: Parts(), card="for tests"
    )
    monkeypatch.setitem(registry.METHODS, "grda", method)


def test_a_bare_name_stands_for_its_levels() -> None:
    assert parse("grda") == ("grda", (Levels(), Levels(mu=0.8)))


def test_settings_in_brackets_are_one_level() -> None:
    assert parse("grda(c=.02, mu=0.65,prox=group)") == ("grda", (Levels(c=0.02, mu=0.65, prox="group"),))
    assert parse("grda()") == ("grda", (Levels(),))


@pytest.mark.parametrize("settings", [Levels(), Levels(c=0.02), Levels(c=1e-6, mu=0.65, prox="group", steps=3)])
def test_the_name_of_a_level_leads_back_to_it(settings: Levels) -> None:
    assert parse(level_name("grda", settings)) == ("grda", (settings,))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("grdo", "did you mean"),
        ("grda(k=1)", "k"),
        ("grda(c=-1)", "grda.c: -1"),
        ("grda(c=much)", "grda.c: 'much'"),
        ("grda(c)", "field=value"),
        ("grda(c=1,c=2)", "each field once"),
        ("grda(c=1", "name or name"),
        ("../grda", "name or name"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str, what: str) -> None:
    with pytest.raises(SpecError, match=r".*") as error:
        parse(text)
    assert what in str(error.value)
    assert "\n" not in str(error.value)
