"""A recipe, a spec, or both, and changes on top: what is asked for, and what the form of the deployment lets through."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from autosparse.flows.autosparse_pipeline import autosparse
from autosparse.flows.recipes import RECIPES, demo, smoke
from autosparse.flows.wanted import wanted
from autosparse.models.errors import SpecError
from autosparse.models.specs.fields import override, to_plain

SCHEMA = autosparse.parameters.model_dump()


def refused(parameters: dict[str, Any]) -> list[str]:
    """Where the server's check finds something, as dotted paths: what `prefect deployment run` and the page are told."""
    found = Draft202012Validator(SCHEMA).iter_errors(parameters)
    return [".".join(map(str, error.absolute_path)) for error in found]


def test_nothing_is_the_demo_and_a_recipe_is_itself() -> None:
    assert wanted(None, None) == demo()
    assert wanted("smoke", None) == smoke()


@pytest.mark.parametrize("name", RECIPES)
def test_a_whole_spec_is_itself_with_and_without_a_recipe(name: str) -> None:
    spec = RECIPES[name]()
    plain = json.loads(json.dumps(to_plain(spec)))
    assert wanted(None, plain) == wanted("smoke", plain) == wanted("smoke", spec) == spec
    assert refused({"recipe": "smoke", "spec": plain}) == []


def test_parts_of_a_spec_replace_those_of_the_recipe_and_lists_as_a_whole() -> None:
    parts = {"irp": {"rounds": 7, "train": {"epochs": 2}}, "fanout": {"methods": ["snip"]}}
    assert wanted("smoke", parts) == override(smoke(), {"irp.rounds": 7, "irp.train.epochs": 2, "fanout.methods": ["snip"]})
    assert refused({"recipe": "smoke", "spec": parts}) == []


def test_what_was_left_as_it_is_in_the_form_changes_nothing() -> None:
    """As Prefect's page sent it, seen in Chromium, with one field filled in: null for switches and JSON boxes that nobody touched."""
    untouched = {"train": {"nesterov": None, "settings": None}, "job": {"channels_last": None, "compile": None}}
    sent = {
        "data": {"download": None, "size": None, "train_limit": 64},
        "irp": untouched,
        "fanout": {"dense": None, "ticket": None, **untouched},
    }
    assert wanted("smoke", sent) == override(smoke(), {"data.train_limit": 64, "data.size": None})
    assert refused({"recipe": "smoke", "spec": sent, "set": [], "name": None, "force": False}) == []
    whole = to_plain(smoke())
    assert wanted(None, {**whole, "fanout": {**whole["fanout"], "repair": None}}) == smoke()


def test_changes_have_the_last_word() -> None:
    assert wanted("smoke", {"irp": {"rounds": 7}}, ["irp.rounds=3", "fanout.methods=[snip]"]) == override(
        smoke(), {"irp.rounds": 3, "fanout.methods": ["snip"]}
    )


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            (None, {"irp": {"rounds": 3}}),
            r"^spec: \['irp'\] is not allowed; allowed: a whole spec, which has data, scoring, .* as well, or a recipe",
        ),
        (("smoke", {"irp": {"runds": 3}}), r"^irp.runds: 'runds' is not known; did you mean 'rounds'\?"),
        (("smoke", {"irp": {"rounds": 0}}), "^irp.rounds: 0 is not allowed; allowed: >= 1"),
        (("smoke", [1]), r"^spec: \[1\] is not allowed; allowed: an object with fields$"),
        ((None, "smoke"), "^spec: 'smoke' is not allowed; allowed: an object with fields$"),
        (("smoke", None, ["irp.rounds"]), "^set: 'irp.rounds' is not allowed; allowed: FIELD=VALUE"),
        (("smoke", None, ["irp.runds=3"]), "^irp.runds: 'runds' is not known"),
        (("smok", None), r"^recipe: 'smok' is not known; did you mean 'smoke'\?"),
    ],
)
def test_what_does_not_fit_is_one_line(asked: tuple[Any, ...], said: str) -> None:
    with pytest.raises(SpecError, match=said) as caught:
        wanted(*asked)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "where"),
    [
        ({"recipe": "smok"}, "recipe"),
        ({"recipe": "smoke", "spec": {"irp": {"rounds": 0}}}, "spec"),
        ({"recipe": "smoke", "spec": {"irp": {"runds": 3}}}, "spec"),
        ({"recipe": "smoke", "spec": {"fanout": {"targets": [{"network": {}}]}}}, "spec"),  # items of lists are whole
        ({"set": ["irp.rounds"]}, "set.0"),
        ({"name": "A B"}, "name"),
    ],
)
def test_the_server_refuses_it_at_submit_time(parameters: dict[str, Any], where: str) -> None:
    assert refused(parameters) == [where]


def test_the_form_says_what_each_field_means_and_may_hold() -> None:
    assert all(found["description"] for found in SCHEMA["properties"].values())
    registered, own, nothing = SCHEMA["properties"]["recipe"]["anyOf"]
    assert "smoke" in registered["enum"] and own["title"] == "package.module:function" and nothing["type"] == "null"
    spec = SCHEMA["properties"]["spec"]["anyOf"][0]
    rounds = spec["properties"]["irp"]["properties"]["rounds"]
    assert (rounds["minimum"], rounds["maximum"], rounds["description"]) == (1, 200, "trainings one after another, each sparser")
    assert "required" not in spec and "default" not in spec["properties"]["irp"]["properties"]["rewind_step"]
    assert "$ref" not in json.dumps(spec)
