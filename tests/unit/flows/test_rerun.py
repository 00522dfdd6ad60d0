"""The command on the report page makes the same spec again."""

import shlex
from dataclasses import replace

import pytest

from autosparse.flows.assignments import parse_changes
from autosparse.flows.recipes import RECIPES, recipe
from autosparse.flows.rerun import changed, rerun_command
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fanout import TargetSpec
from autosparse.models.specs.fields import override


def remade(command: str) -> ExperimentSpec:
    words = shlex.split(command)
    assert words[:3] == ["autosparse", "run", "--recipe"]
    settings = tuple(words[index + 1] for index, word in enumerate(words) if word == "--set")
    return override(recipe(words[3]), parse_changes(settings))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_needs_no_changes(name: str) -> None:
    assert rerun_command(recipe(name), "x") == f"autosparse run --recipe {name} --name x"


def test_changes_come_back_whatever_their_type() -> None:
    base = recipe("small_cifar")
    data = replace(base.data, path="/data/it's here", train_limit=None)
    network = replace(base.irp.networks[0], prune_head=False)
    other = TargetSpec(network=network, data=replace(base.data, name="digits", path=None))
    spec = replace(
        base,
        data=data,
        irp=replace(base.irp, rounds=3, networks=(network,)),
        fanout=replace(base.fanout, targets=(TargetSpec(network=network), other), densities=(0.3,), ticket=False),
    )
    command = rerun_command(spec, "mine")
    assert command.startswith("autosparse run --recipe small_cifar --name mine ")
    assert remade(command) == spec


@pytest.mark.parametrize(("name", "unused"), [("small_cifar", ["contrast"]), ("smoke", ["contrast", "candidates", "hubs_ahead"])])
def test_what_an_old_run_ignored_comes_back(name: str, unused: list[str]) -> None:
    settings = {"scorer.allocation": "learned", "scorer.sharpness": 2.0, "scorer.contrast": 2.0}
    spec = override(recipe(name), {**settings, "scorer.unused": unused})
    assert remade(rerun_command(spec, "mine")) == spec


def test_a_run_without_sources_comes_back_from_any_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = override(recipe("small_cifar"), {"irp.seeds": [], "fanout.ticket": False, "fanout.methods": ["snip"]})
    assert remade(rerun_command(spec, "mine")) == spec
    assert remade(rerun_command(recipe("demo"), "mine")) == recipe("demo")
    monkeypatch.delitem(RECIPES, "compare")
    command = rerun_command(ExperimentSpec(data=spec.data, scoring=spec.scoring, fanout=spec.fanout), "mine")
    assert "--set 'irp.seeds=[]'" in command and "irp.rounds" not in command and remade(command) == spec


def test_changed_names_the_smallest_part() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": [{"e": 1}, {"e": 2}], "f": None}
    wanted = {"a": {"b": 1, "c": [1]}, "d": [{"e": 1}, {"e": 3}], "f": {"g": 1}}
    assert changed(base, wanted) == {"a.c": [1], "d.1.e": 3, "f": {"g": 1}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[grda,dst_ee, snip]", ["grda", "dst_ee", "snip"]),
        ("[grda(c=0.05,mu=0.8),snip]", ["grda(c=0.05,mu=0.8)", "snip"]),
        ('["grda(c=0.05,mu=0.8)", "snip"]', ["grda(c=0.05,mu=0.8)", "snip"]),
        ("grda(c=0.05,mu=0.8)", "grda(c=0.05,mu=0.8)"),
        ("[0.1,.02]", [0.1, ".02"]),
        ('["snip"', '["snip"'),
        ('[{"name": resnet8}]', '[{"name": resnet8}]'),
        ("[]", []),
    ],
)
def test_a_list_needs_no_quotes(text: str, value: object) -> None:
    assert parse_changes((f"fanout.methods={text}",)) == {"fanout.methods": value}
