"""A scorer's head as one of three kinds: a setting of another kind is refused, and specs of before that are read and keep their names."""

from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import pytest
from pydantic import TypeAdapter, ValidationError

from autosparse.flows.assignments import parse_changes
from autosparse.flows.recipes import recipe, small_cifar, small_cifar_scorer, smoke
from autosparse.flows.rerun import rerun_command
from autosparse.models.criteria.smallest_paths import HEAD as RULE
from autosparse.models.errors import ConflictError, SpecError
from autosparse.models.specs.experiment import ExperimentSpec, stored_spec
from autosparse.models.specs.fields import fingerprint, from_plain, override, to_plain
from autosparse.models.specs.run_specs import ScorerSpec
from autosparse.models.specs.scorer_heads import CHAMPION_HEAD, HEADS, OWNERS, GlobalHead, LearnedHead, PathsHead
from autosparse.storage.paths import RunPaths
from autosparse.tasks.checks.preflight import check_same_spec
from autosparse.tasks.results.run_view import view_run

TILT = [0.0, 0.0, 0.0, 0.0, 0.0, 1.2]
NOTHING_OF_IT = (
    "scorer.contrast: 2.0 is not allowed; allowed: 1.0 beside allocation 'learned', others beside 'paths'; an old run that has it"
)


def head(**changes: Any) -> Any:
    """The head of the scale model, whose own is global, with these fields of its scorer."""
    return override(small_cifar(), {f"scorer.{name}": value for name, value in changes.items()}).scorer.head


def test_a_head_has_its_own_settings_and_no_others() -> None:
    assert head() == GlobalHead()
    assert head(allocation="learned", sharpness=2, tilt=TILT) == LearnedHead(sharpness=2.0, tilt=tuple(TILT))
    assert head(allocation="paths", contrast=2, blend=0.5) == PathsHead(contrast=2.0, contrast_ahead=1.0, blend=0.5)
    assert not hasattr(head(allocation="learned"), "contrast")


def test_the_flat_spelling_declares_what_the_heads_declare() -> None:
    flat = get_type_hints(ScorerSpec, include_extras=True)
    assert flat["allocation"].__args__ == tuple(HEADS)
    for kind in HEADS.values():
        assert {name: hint for name, hint in get_type_hints(kind, include_extras=True).items() if name != "kind"}.items() <= flat.items()
    assert sorted(OWNERS) == sorted(["sharpness", "tilt", "contrast", "contrast_ahead", "blend", "candidates", "hubs_ahead"])
    assert sum(len(fields(kind)) for kind in HEADS.values()) == len(OWNERS)  # no setting has two owners


def test_the_recipes_and_the_rules_of_thumb_have_one_head() -> None:
    assert small_cifar_scorer().scorer.head == smoke().scorer.head == CHAMPION_HEAD
    assert asdict(RULE) == asdict(CHAMPION_HEAD)
    assert PathsHead(contrast=1.0, contrast_ahead=1.0, blend=0.0, candidates=0.2, hubs_ahead=0.25) == CHAMPION_HEAD


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("scorer.allocation=learned", "scorer.contrast=2"), NOTHING_OF_IT),
        (("scorer.contrast=2", "scorer.allocation=learned"), NOTHING_OF_IT),
        (("scorer.sharpness=0",), "scorer.sharpness: 0.0 is not allowed; allowed: None beside allocation 'paths', others beside 'learned'"),
        ((f"scorer.tilt={TILT}",), f"scorer.tilt: {TILT} is not allowed; allowed: [] beside allocation 'paths', others beside 'learned'"),
        (("scorer.allocation=global", "scorer.blend=0.5"), "scorer.blend: 0.5 is not allowed; allowed: 0.0 beside allocation 'global'"),
        (("scorer.allocation=global", "scorer.candidates=0.5"), "scorer.candidates: 0.5 is not allowed; allowed: 1.0 beside allocation"),
        (("scorer.allocation=lerned",), "scorer.allocation: 'lerned' is not allowed; allowed: global | learned | paths"),
        (("scorer.allocation=[]",), "scorer.allocation: [] is not allowed; allowed: global | learned | paths"),
        (("scorer.head=paths",), "scorer.head: 'head' is not known"),
        (("scorer.blend=1.5",), "scorer.blend: 1.5 is not allowed; allowed: >= 0 and <= 1"),
        (("scorer.allocation=learned", "scorer.tilt=[1,2]"), "scorer.tilt: [1.0, 2.0] is not allowed; allowed: 6 numbers, or none"),
        (("scorer.allocation=learned", "scorer.sharpness=-1"), "scorer.sharpness: -1.0 is not allowed; allowed: >= 0"),
        (
            ('scorer.unused=["contrast"]',),
            "scorer.unused: ['contrast'] is not allowed; allowed: [], what is set of other heads than 'paths'",
        ),
        (("scorer.unused=[3]",), "scorer.unused[0]: 3 is not allowed; allowed: a value of type str"),
        (
            ("scorer.allocation=learned", 'scorer.unused=["hubs_ahead"]'),
            "scorer.candidates: 0.2 is not allowed; allowed: 1.0 beside allocation 'learned'",
        ),
    ],
)
def test_what_does_not_belong_to_the_chosen_head_is_refused_in_one_line(changes: tuple[str, ...], message: str) -> None:
    with pytest.raises(SpecError) as refused:
        override(smoke(), parse_changes(changes))
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_each_strange_setting_has_a_line() -> None:
    with pytest.raises(SpecError) as refused:
        override(small_cifar(), {"scorer.contrast": 2, "scorer.sharpness": 1})
    assert [line.partition(":")[0] for line in str(refused.value).splitlines()] == ["scorer.sharpness", "scorer.contrast"]


def test_a_strange_setting_is_refused_at_every_door() -> None:
    plain = to_plain(small_cifar())
    plain["scorer"] |= {"allocation": "learned", "contrast": 2.0}
    with pytest.raises(SpecError, match=r"^scorer\.contrast: 2\.0 is not allowed"):
        from_plain(ExperimentSpec, plain)
    with pytest.raises(SpecError, match=r"^scorer\.contrast: 2\.0 is not allowed"):
        override(smoke(), {"scorer": plain["scorer"]})
    with pytest.raises(ValidationError, match=r"contrast: 2\.0 is not allowed"):  # as Prefect reads `-p spec=...`
        TypeAdapter(ExperimentSpec).validate_python(plain)
    with pytest.raises(SpecError, match=r"^contrast: 2\.0 is not allowed"):
        replace(small_cifar().scorer, contrast=2.0)
    named = plain | {"scorer": plain["scorer"] | {"unused": ["contrast"]}}
    assert TypeAdapter(ExperimentSpec).validate_python(named).scorer.head == LearnedHead(sharpness=None, tilt=())


def test_another_head_for_a_recipe_leaves_its_settings_unused() -> None:
    changed = override(smoke(), parse_changes(("scorer.allocation=learned", "scorer.sharpness=2")))
    assert changed.scorer.head == LearnedHead(sharpness=2.0, tilt=())
    assert (changed.scorer.candidates, changed.scorer.unused) == (0.2, ("candidates", "hubs_ahead"))  # as in the name that it has had
    assert from_plain(ExperimentSpec, to_plain(changed)) == changed
    assert override(changed, {"irp.rounds": 1}).scorer == changed.scorer
    back = override(changed, {"scorer.allocation": "paths", "scorer.sharpness": None})
    assert back == smoke()
    cleaned = override(changed, {"scorer.candidates": 1.0, "scorer.hubs_ahead": 1.0})
    assert cleaned.scorer.unused == ()


def old(**scorer: Any) -> dict[str, Any]:
    """A spec as runs were stored before wrong settings were refused."""
    plain = to_plain(recipe("small_cifar"))
    del plain["scorer"]["unused"]
    plain["scorer"] |= scorer
    return plain


def test_a_stored_spec_is_read_with_what_it_ignored() -> None:
    found = stored_spec(old(allocation="learned", contrast=2.0, blend=0.5))
    assert found.scorer.head == LearnedHead(sharpness=None, tilt=())
    assert found.scorer.unused == ("contrast", "blend")
    assert stored_spec(to_plain(found)) == found  # as it is written from now on
    assert stored_spec(old()) == small_cifar()
    before_paths = old()
    for name in ("contrast", "contrast_ahead", "blend", "candidates", "hubs_ahead"):
        del before_paths["scorer"][name]
    assert stored_spec(before_paths) == small_cifar()


@pytest.mark.parametrize("spoiled", [[], 3, None, {}, {"scorer": 3}, {"scorer": {"allocation": {}}}, old(contrastt=2), old(contrast="2")])
def test_a_spoiled_stored_spec_is_refused(spoiled: Any) -> None:
    with pytest.raises(SpecError):
        stored_spec(spoiled)


def test_an_old_run_with_an_ignored_setting_is_shown_and_taken_up(made: SimpleNamespace, tmp_path: Path) -> None:
    run = RunPaths(made.name)
    spec = override(made.spec(), {"scorer.allocation": "learned"})
    store = made.run(tmp_path / "old", spec)
    record = store.read_json(run.spec)
    record["spec"]["scorer"]["contrast"] = 2.0
    del record["spec"]["scorer"]["unused"]
    named = replace(spec.scorer, contrast=2.0, unused=("contrast", "candidates", "hubs_ahead"))
    spec = replace(spec, scorer=named)
    store.write_json(run.spec, record | {"fingerprint": fingerprint(spec)})
    seen = view_run(store, made.name)
    assert seen["fingerprint"] == fingerprint(spec) and len(seen["rounds"]) == 4
    assert stored_spec(seen["spec"]) == spec
    words = rerun_command(spec, made.name)  # on the report page
    assert "--set scorer.contrast=2.0" in words and "scorer.unused" in words
    check_same_spec(store, run, stored_spec(record["spec"]))
    with pytest.raises(ConflictError, match="holds a run of another spec"):
        check_same_spec(store, run, override(made.spec(), {"scorer.allocation": "learned"}))
