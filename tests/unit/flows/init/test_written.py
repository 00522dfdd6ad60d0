"""The file that `init` writes: every field has its comment, and it is read back as the spec that it was."""

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml

from autosparse.flows.init.comments import COMMENTS
from autosparse.flows.init.written import written
from autosparse.flows.recipes import RECIPES, demo, recipe, small_cifar
from autosparse.flows.spec_file import spec_of
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fanout import TargetSpec
from autosparse.models.specs.run_specs import DataSpec, NetworkSpec

FILE = Path("/x/mine.yaml")


def kinds(hint: Any) -> set[type]:
    """The specs that a type is made of."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        inner = get_type_hints(hint, include_extras=True).values()
        return {hint}.union(*map(kinds, inner))
    return set().union(*map(kinds, get_args(hint)))


def test_no_field_without_a_comment_and_no_comment_without_a_field() -> None:
    assert set(COMMENTS) == kinds(ExperimentSpec)
    for kind, words in COMMENTS.items():
        assert list(words) == [field.name for field in dataclasses.fields(kind)], kind
        assert all(text and "\n" not in text and "#" not in text for text in words.values())


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_read_back(name: str) -> None:
    assert spec_of(written(recipe(name), "A comment:\nof two lines."), FILE) == recipe(name)


def test_names_that_yaml_would_read_otherwise_are_read_back() -> None:
    base = small_cifar()
    names = [
        "no",
        "on",
        "1e3",
        "null",
        "~",
        "-",
        "a b",
        "it's",
        'a "b"',
        "a: b",
        "# a",
        "ünï",
        "\t",
        "日本",
        "🙂",
        "...",
        "---",
        "&x",
        "*x",
        "!x",
    ]
    for name in names:
        spec = replace(base, data=DataSpec(name=name, path=f"/data/{name}"))
        assert spec_of(written(spec, ""), FILE) == spec, name


def test_what_differs_between_rounds_and_arms_is_written_twice() -> None:
    base = demo()
    spec = replace(
        base,
        irp=replace(base.irp, job=replace(base.irp.job, gpus_per_worker=1.0)),
        fanout=replace(
            base.fanout,
            train=replace(base.fanout.train, epochs=9),
            targets=(
                TargetSpec(network=NetworkSpec(name="resnet8")),
                TargetSpec(network=NetworkSpec(name="vgg11", init="own"), data=DataSpec(name="mnist", path="/m"), methods=("snip",)),
            ),
        ),
    )
    text = written(spec, "")
    assert spec_of(text, FILE) == spec
    assert "*train" not in text and "epochs: 9" in text and "gpus_per_worker: 1.0" in text


def test_a_file_has_what_was_chosen_and_the_rest_once_in_one_block() -> None:
    text = written(demo(), "Mine.")
    chosen, _, rest = text.partition("# Left out above")
    assert text.startswith("# Mine.\n") and len(chosen.splitlines()) < 70
    assert "train: &train" in chosen and "train: *train" in chosen and "job:" not in chosen and "init:" not in chosen
    for line in chosen.splitlines():
        assert not line or "# " in line, line
    fields = [line.split()[1] for line in rest.splitlines()[1:]]
    assert all(line.startswith("# ") for line in rest.splitlines()[1:]) and len(set(fields)) == len(fields)
    assert "irp.job.cpus_per_worker:" in fields and "valley.pairs:" in fields and "fanout.controls:" in fields
    assert {"data.augment:", "irp.rounds:", "fanout.job.workers:"}.isdisjoint(fields)


def test_allowed_values_are_those_of_the_declarations() -> None:
    lines = {line.split()[0].strip("#"): line for line in written(demo(), "").splitlines() if line.strip(" #")}
    assert lines["rounds:"].endswith("[int >= 1 and <= 200]")
    assert lines["criterion:"].endswith("[magnitude | snip]")
    assert lines["augment:"].endswith("[none | shift_flip | crop_flip | shift | resized_crop_flip]")
    assert not lines["methods:"].endswith("]")  # too many


def test_any_reader_of_yaml_takes_the_file() -> None:
    """PyYAML's own loader knows YAML 1.1 alone."""
    plain = yaml.safe_load(written(demo(), ""))
    assert plain["irp"]["train"] == plain["fanout"]["train"] and plain["irp"]["train"]["weight_decay"] == 0.0005
