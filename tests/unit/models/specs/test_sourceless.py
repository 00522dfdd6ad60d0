"""A spec without sources: no IRP and no scorer, whatever else is said of them; what would need one is refused in a line."""

import dataclasses
import json
from typing import Any

import pytest

from autosparse.flows.recipes import compare, demo, small_cifar
from autosparse.models.arms.plan import planned, sources
from autosparse.models.errors import SpecError
from autosparse.models.specs.experiment import ExperimentSpec, no_irp, no_scorer, plain_spec, stored_spec
from autosparse.models.specs.fields import fingerprint, from_plain, override, to_plain

WITHOUT = {"irp.seeds": [], "fanout.ticket": False}


def test_a_recipe_loses_its_irp_by_its_seeds_alone() -> None:
    spec = override(small_cifar(), {**WITHOUT, "fanout.methods": ["snip", "synflow"]})
    assert sources(spec) == [] and spec.irp == no_irp() and spec.scorer == no_scorer()
    assert {arm.method for arm in planned(spec)} == {"dense", "snip", "synflow"}


def test_one_run_has_one_fingerprint_however_it_is_written() -> None:
    spec = override(demo(), {**WITHOUT, "fanout.methods": ["snip"]})
    short = {name: part for name, part in to_plain(spec).items() if name in ("data", "scoring", "fanout")}
    other = {**to_plain(demo())["irp"], "seeds": []}
    assert plain_spec(spec) == {**short, "valley": to_plain(spec)["valley"]}
    for plain in (short, plain_spec(spec), to_plain(spec), {**short, "irp": other, "scorer": to_plain(demo())["scorer"]}):
        again = from_plain(ExperimentSpec, json.loads(json.dumps(plain)))
        assert again == spec and fingerprint(again) == fingerprint(spec)
    assert stored_spec(plain_spec(spec)) == spec
    assert plain_spec(demo()) == to_plain(demo())


def test_holdout_seeds_are_not_asked_for_without_sources() -> None:
    assert demo().scorer.holdout_seeds == (1,)  # not of irp.seeds any more
    assert override(demo(), {**WITHOUT, "fanout.methods": ["snip"]}).fanout.methods == ("snip",)


TICKET = "fanout.ticket: True is not allowed; allowed: false without irp.seeds: tickets come from an IRP"
SCORER = "fanout.methods: ['scorer'] is not allowed; allowed: methods that need no scorer: without irp.seeds none is fitted"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fanout.ticket": True}, TICKET),
        ({"fanout.methods": ["snip", "autos"]}, SCORER),
        ({"fanout.ticket": True, "fanout.methods": ["scorer"]}, f"{TICKET}\n{SCORER}"),
        ({"fanout.methods": ["scorer(grain=channels,widths=rates)"]}, "fanout.methods: ['scorer(grain=channels,widths=rates)'] is not"),
        (
            {"fanout.methods": ["scorer_growth"], "scoring.lookahead_steps": 3},
            "fanout.methods: ['scorer_growth'] is not allowed; allowed: methods that need no scorer",
        ),
        ({"fanout.targets.0.methods": ["scorer"]}, "fanout.targets.0.methods: ['scorer'] is not allowed; allowed: methods that need no"),
        ({"irp.rounds": 3}, "irp.rounds: nothing reads it without irp.seeds; allowed: with some"),
        ({"scorer.epochs": 3}, "scorer.epochs: nothing reads it without irp.seeds; allowed: with some"),
        ({"irp.seeds": [0]}, "scorer: missing; allowed: a scorer where irp.seeds has some"),
        ({"fanout.methods": ["growth"]}, "scoring.lookahead_steps: 0 is not allowed; allowed: >= 1 for growth"),
    ],
)
def test_what_needs_sources_is_refused_in_a_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        override(compare(), changes)
    assert str(caught.value).startswith(message) and len(str(caught.value).splitlines()) == len(message.splitlines())


def test_what_stands_for_nothing_may_be_named() -> None:
    whole = {f"{part}.{name}": value for part in ("irp", "scorer") for name, value in to_plain(compare())[part].items()}
    assert override(compare(), whole) == compare()
    assert override(demo(), {**whole, **{f"fanout.{name}": value for name, value in to_plain(compare())["fanout"].items()}}) == compare()


def test_irp_and_scorer_are_there_both_or_neither() -> None:
    plain = to_plain(demo())
    with pytest.raises(SpecError, match=r"^irp: missing beside a scorer; allowed: both, or neither$"):
        from_plain(ExperimentSpec, {name: part for name, part in plain.items() if name != "irp"})
    with pytest.raises(SpecError, match=r"^scorer: missing; allowed: a scorer where irp.seeds has some$"):
        from_plain(ExperimentSpec, {name: part for name, part in plain.items() if name != "scorer"})
    with pytest.raises(SpecError, match=r"^fanout.ticket: True is not allowed; .*\nfanout.methods: \['scorer'\] is not allowed"):
        from_plain(ExperimentSpec, {name: part for name, part in plain.items() if name not in ("irp", "scorer")})
    with pytest.raises(SpecError, match=r"^scoring: missing; allowed: an object with batches, "):
        from_plain(ExperimentSpec, {"data": plain["data"], "fanout": plain["fanout"]})


def test_a_spec_with_sources_is_never_equal_to_what_stands_for_none() -> None:
    with pytest.raises(SpecError, match=r"^scorer: missing"):
        dataclasses.replace(demo(), scorer=no_scorer())
    with pytest.raises(SpecError, match=r"^irp: missing"):
        dataclasses.replace(demo(), irp=no_irp())
