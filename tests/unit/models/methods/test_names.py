"""How a method of the fan-out is written."""

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from autosparse.models.errors import SpecError
from autosparse.models.methods import names, registry
from autosparse.models.methods.contract import Method, Parts, Settings
from autosparse.models.methods.registry import level_name, parse
from autosparse.models.specs.grain import cost_of
from autosparse.models.specs.rules import Range


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


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("snip(grain=channels)", "snip(grain=channels)"),
        ("snip(widths=uniform, grain=channels)", "snip(grain=channels,widths=uniform)"),
        ("synflow(grain=mixed,inside=.5,cost=weights)", "synflow(grain=mixed,cost=weights,inside=0.5)"),
        ("autos(grain=channels)", "scorer(grain=channels)"),
        ("package.module:score(grain=kernels)", "package.module:score(grain=kernels)"),
        ("narrow", "narrow"),
        ("narrow()", "narrow"),
        ("narrow(cost=multiply_adds)", "narrow"),
        ("narrow(cost=weights)", "narrow(cost=weights)"),
    ],
)
def test_a_grain_and_narrow_networks_have_one_spelling(text: str, name: str) -> None:
    assert names.spelled("methods", text) == (name,)
    assert not names.trains(name), "it is no method that trains otherwise"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("snip(grain=chanels)", "methods.snip.grain: 'chanels' is not allowed; allowed: kernels | channels | mixed"),
        ("snip(grain=mixed,inside=0)", "methods.snip.inside: 0"),
        ("snip(grain=channels,cost=seconds)", "methods.snip.cost: 'seconds'"),
        ("snip(grain=channels,widths=rates)", "methods.snip.widths: 'rates' is not allowed"),
        ("snap(grain=channels)", "did you mean"),
        ("grda(grain=channels)", "not known"),
        ("narrow(width=4)", "methods.narrow.width"),
        ("narrow(grain=channels)", "methods.narrow.grain"),
    ],
)
def test_what_is_wrong_with_a_grain_is_said_in_one_line(text: str, what: str) -> None:
    with pytest.raises(SpecError) as error:
        names.spelled("methods", text)
    assert what in str(error.value) and "\n" not in str(error.value)


def test_what_a_share_is_a_share_of() -> None:
    assert cost_of("snip") == "weights"
    assert cost_of("snip(grain=channels)") == cost_of("narrow") == "multiply_adds"
    assert cost_of("snip(grain=channels,cost=parameters)") == "parameters"
    assert cost_of("snip(grain=kernels)") == cost_of("snip(grain=mixed,cost=parameters)") == "weights"


def test_a_learned_or_looking_method_is_one_at_every_grain() -> None:
    assert names.is_learned("scorer(grain=channels)") and not names.is_learned("snip(grain=channels)")
    assert names.looks_ahead("growth(grain=channels)") and not names.looks_ahead("scorer(grain=channels)")
