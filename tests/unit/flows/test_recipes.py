"""Recipes: listed once, and functions of a person's own module."""

import re
from typing import Any

import pytest
from prefect.exceptions import ParameterTypeError

from autosparse.flows.autosparse_pipeline import autosparse
from autosparse.flows.recipes import RECIPES, recipe, smoke
from autosparse.models.errors import SpecError
from tests.plugins import outside


def test_a_recipe_of_ones_own_is_a_spec_like_any_other() -> None:
    assert recipe("tests.plugins.outside:recipe") == smoke()
    assert autosparse.validate_parameters({"recipe": "tests.plugins.outside:recipe"})["recipe"] == "tests.plugins.outside:recipe"


BAD = [
    ("dmeo", "'dmeo' is not known; did you mean 'demo'?"),
    ("no_such_package:x", "(not importable: No module named 'no_such_package')"),
    ("tests.plugins.outside:missing", "(no such object: module 'tests.plugins.outside' has no attribute 'missing')"),
    ("tests.plugins.outside:NUMBER", "(not callable: it is a int)"),
    ("tests.plugins.outside:of_another", "(wrong signature: missing a required argument: 'width')"),
    ("tests.plugins.outside:nothing", "(it returns a NoneType)"),
    ("tests.plugins.outside:fails", "(it raises ZeroDivisionError: in the recipe)"),
    ("tests.plugins.broken:x", "(not importable: RuntimeError: no licence found)"),
]


@pytest.mark.parametrize(("name", "message"), BAD)
def test_what_is_no_recipe_is_one_line_for_the_command_and_for_the_deployment(name: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        recipe(name)
    assert str(caught.value).startswith(f"recipe: '{name}' is not ") and message in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ParameterTypeError, match=re.escape(message)):
        autosparse.validate_parameters({"recipe": name})


def test_a_recipe_says_which_value_of_its_spec_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong() -> Any:
        raise SpecError("rounds: 0 is not allowed; allowed: >= 1")

    monkeypatch.setattr(outside, "recipe", wrong)
    with pytest.raises(
        SpecError, match=r"outside:recipe' is not allowed; .*\(it raises SpecError: rounds: 0 is not allowed; allowed: >= 1\)$"
    ):
        recipe("tests.plugins.outside:recipe")


def test_the_flow_parameter_offers_what_is_registered_and_takes_names_from_outside() -> None:
    listed, open_, _ = autosparse.parameters.model_dump()["properties"]["recipe"]["anyOf"]
    assert listed["enum"] == list(RECIPES)
    assert re.search(open_["pattern"], "my_pkg.recipes:mine") and not re.search(open_["pattern"], "dmeo")
