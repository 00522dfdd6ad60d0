"""Criteria and methods of a person's own module on their way through the fan-out: names, keys, checks, masks, verdicts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow.utils.validation import _validate_metric_name
from pydantic import TypeAdapter

from autosparse.flows.console import expected
from autosparse.flows.recipes import smoke
from autosparse.models.arms.names import find_pairs
from autosparse.models.errors import SpecError
from autosparse.models.methods.contract import Method, Parts
from autosparse.models.methods.names import is_criterion, trains
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import fingerprint, from_plain, override, to_plain
from autosparse.storage.mask_files import load_mask
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths, method_key
from autosparse.storage.store import check_key
from autosparse.tasks.checks.preflight import check_spec
from autosparse.tasks.results.rows import metric_name
from autosparse.tasks.results.verdicts import gaps
from autosparse.tasks.worker.inputs import Launch, RunInputs, config_of, launched
from autosparse.tasks.worker.score_target import ScoringInputs, score_target
from tests.plugins import outside
from tests.plugins.outside import Decay
from tests.worker_jobs import NOBODY

pytestmark = pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # images lie in the cache

MINE = "tests.plugins.outside"
SIZE, DECAY = f"{MINE}:size", f"{MINE}:DECAY"


def spec(*methods: str, **changes: Any) -> ExperimentSpec:
    return override(smoke(), {"fanout.methods": list(methods), **changes})


def test_a_criterion_stays_as_it_is_written_and_a_method_gets_its_levels_in_brackets() -> None:
    assert spec("snip", SIZE, DECAY).fanout.methods == ("snip", SIZE, f"{DECAY}()", f"{DECAY}(c=0.5)")
    assert spec(f"{DECAY}( c=.50 )").fanout.methods == (f"{DECAY}(c=0.5)",)
    assert spec(f"{MINE}:ONE_LEVEL").fanout.methods == (f"{MINE}:ONE_LEVEL()",)
    found = spec("snip", SIZE, DECAY)
    assert from_plain(ExperimentSpec, to_plain(found)) == found == TypeAdapter(ExperimentSpec).validate_python(to_plain(found))
    assert fingerprint(spec(f"{DECAY}(c=5e-1)")) == fingerprint(spec(f"{DECAY}(c=0.5)")) != fingerprint(spec(DECAY))
    assert [trains(name) for name in found.fanout.methods] == [False, False, True, True]
    assert [is_criterion(name) for name in (*found.fanout.methods, "scorer", "dense", f"{SIZE}+shuffle")] == [True, True, *[False] * 5]


def test_arms_are_counted_and_named() -> None:
    found = spec(SIZE, DECAY, **{"fanout.densities": [0.5, 0.1], "fanout.controls": ["shuffle"]})
    assert expected(found)["arms"] == 1 + 2 * 2 + 2  # dense; the criterion and its control at two densities; two levels
    ((first, second),) = find_pairs(found, f"{SIZE}+shuffle@0.1", f"lenet300-100/{DECAY}(c=0.5)#10")
    assert (first.method, first.control, first.density) == (SIZE, "shuffle", 0.1)
    assert (second.method, second.density) == (f"{DECAY}(c=0.5)", None)


def test_keys_and_metric_names_are_valid_and_differ() -> None:
    names = [SIZE, SIZE.upper(), "tests.plugins:outside.size", "tests:plugins.outside.size", f"{DECAY}()", f"{DECAY}(c=0.5)"]
    names += [f"a:{'long' * 100}{end}" for end in "ab"]
    assert method_key(SIZE) == "tests.plugins.outside-size-ed49bb82"
    keys = [RunPaths("x").arm("net", 1, name, density) for name in names for density in (None, 0.1)]
    assert len({key.lower() for key in keys}) == len(keys)
    metrics = [
        metric_name({"target": "net", "method": name, "control": control, "density": 0.1})
        for name in names
        for control in (None, "shuffle")
    ]
    assert len(set(metrics)) == len(metrics)
    for key, metric in zip(keys, metrics, strict=True):
        check_key(key)
        _validate_metric_name(metric)
        assert max(map(len, key.split("/"))) < 100


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("no_such_package:x", "(not importable: No module named 'no_such_package')"),
        ("no_such_package:X(c=1)", "(not importable: No module named 'no_such_package')"),
        (f"{MINE}:missing", "(no such object: "),
        (f"{MINE}:NUMBER", "(not callable: it is a int)"),
        (f"{MINE}:nothing", "(wrong signature: "),
        ("tests.plugins.broken:x", "(not importable: RuntimeError: no licence found)"),
        (f"{MINE}:ONE_LEVEL", f"{MINE}:ONE_LEVEL()' on lenet300-100 at density 0.1 is not allowed; density: too low; allowed: >= 0.2"),
    ],
)
def test_what_will_not_do_is_said_before_anything_starts(method: str, why: str) -> None:
    made = spec("snip", method)
    with pytest.raises(SpecError) as caught:
        check_spec(made)
    assert str(caught.value).startswith("fanout.methods: '") and why in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (f"{DECAY}(c=2)", f"fanout.methods[0].{DECAY}.c: 2.0 is not allowed; allowed: >= 0 and <= 1"),
        (f"{DECAY}(k=2)", f"fanout.methods[0].{DECAY}.k: 'k' is not known"),
        (f"{DECAY}(c", f"fanout.methods[0]: '{DECAY}(c' is not allowed; allowed: name or name(field=value,...)"),
        (f"{SIZE}(c=2)", f"fanout.methods[0]: '{SIZE}' is not allowed; allowed: package.module:object, a Method"),
        (
            f"{MINE}:UNSPEAKABLE",
            "fanout.methods[0]: 'tests.plugins.outside:UNSPEAKABLE(kind=a+b)' is not allowed; allowed: settings that are",
        ),
        ("tests.plugins outside:size", "fanout.methods[0]: 'tests.plugins outside:size' is not known"),
        ("a:b:c", "fanout.methods[0]: 'a:b:c' is not known"),
    ],
)
def test_what_is_written_wrong_is_said_when_the_spec_is_made(method: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec(method)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": dict}, "Method.settings: <class 'dict'> is not allowed"),
        ({"levels": ()}, "Method.levels: () is not allowed; allowed: at least one Decay"),
        ({"levels": (3,)}, "Method.levels: (3,) is not allowed"),
        ({"parts": None}, "Method.parts: None is not allowed"),
    ],
)
def test_a_method_that_is_put_together_wrong_is_refused(changes: dict[str, Any], message: str) -> None:
    right: dict[str, Any] = {"settings": Decay, "levels": (Decay(),), "by_density": False, "parts": lambda *given: Parts(), "card": ""}
    Method(**right)
    with pytest.raises(SpecError) as caught:
        Method(**right | changes)
    assert str(caught.value).startswith(message)


def test_a_finished_run_is_read_without_the_module() -> None:
    stored = to_plain(spec("snip", SIZE, f"{DECAY}(c=0.5)"))
    stored["fanout"]["methods"] = [text.replace("tests.plugins", "gone") for text in stored["fanout"]["methods"]]
    assert from_plain(ExperimentSpec, stored).fanout.methods == ("snip", "gone.outside:size", "gone.outside:DECAY(c=0.5)")


@pytest.fixture
def scored(tmp_path: Path) -> Any:
    """The body of a scoring job on digits: its report and masks."""

    def body(method: str, **scoring: Any) -> tuple[dict[str, Any], dict[str, dict[str, torch.Tensor]]]:
        given = smoke()
        inputs = ScoringInputs(
            target=replace(given.fanout.targets[0], data=given.data),
            data=given.data,
            train=given.fanout.train,
            seed=10,
            method=method,
            densities=(0.1, 0.02),
            min_per_layer=1,
            repair=False,
            scorer=None,
            controls=("shuffle", "invert"),
            step=RunPaths("x").scores("lenet300-100", 10, method),
        )
        run = RunInputs(storage=str(tmp_path), name="x", scoring=replace(given.scoring, **scoring))
        report = score_target(launched(config_of(run, inputs), Launch(job="job", resources=given.fanout.job), NOBODY))
        cuts = (
            {}
            if "error" in report
            else report["cuts"] | {f"{name}@{at}": cut for name, of in report["controls"].items() for at, cut in of.items()}
        )
        store = open_store(str(tmp_path))
        return report, {name: load_mask(store.read(cut["mask"])) for name, cut in cuts.items()}

    return body


def test_the_masks_of_a_criterion_equal_to_magnitude_are_those_of_magnitude_bit_for_bit(scored: Any) -> None:
    (mine, masks), (theirs, expected_masks) = scored(SIZE), scored("magnitude")
    assert mine["target"] == f"lenet300-100-{fingerprint(smoke().data)}", "the name of a target with data of its own, as its arms have it"
    assert (
        set(masks) == set(expected_masks) == {"0.1", "0.02", *(f"{name}@{at}" for name in ("shuffle", "invert") for at in ("0.1", "0.02"))}
    )
    drawn = [name for name in masks if name.startswith("shuffle")]  # by the name of the method
    for name in masks:
        same = all(np.array_equal(masks[name][layer].numpy(), keep.numpy()) for layer, keep in expected_masks[name].items())
        assert same == (name not in drawn)
        assert {layer: int(keep.sum()) for layer, keep in masks[name].items()} == {
            layer: int(keep.sum()) for layer, keep in expected_masks[name].items()
        }
    assert [cut["checksum"] for cut in mine["cuts"].values()] == [cut["checksum"] for cut in theirs["cuts"].values()]
    assert mine["method"] == SIZE and mine["cuts"]["0.1"]["mask"].startswith(
        "runs/x/fanout/lenet300-100/seed10/tests.plugins.outside-size-"
    )


def test_a_criterion_brings_its_own_allocation(scored: Any) -> None:
    report, _ = scored(f"{MINE}:SIZE_PER_LAYER")
    assert list(report["cuts"]["0.1"]["layer_densities"].values()) == pytest.approx([0.1, 0.1, 0.1], abs=1e-4)


def test_what_is_wrong_with_scores_reaches_the_driver_as_one_line(scored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(network: Any, batches: Any, generator: Any, *, head: bool = True, density: float) -> Any:
        return {"1.weight": torch.ones(3)}

    monkeypatch.setattr(outside, "size", half)
    report, _ = scored(SIZE)
    assert report["error"]["type"] == "SpecError"
    assert report["error"]["message"].startswith(f"{SIZE}: scores too many: none, missing: 3.weight 5.weight; allowed: ")


def test_a_criterion_from_outside_is_in_the_strict_track(scored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its batches cannot look ahead, whatever the spec says for others."""
    seen = []

    def looks(network: Any, batches: Any, generator: Any, *, head: bool = True, density: float) -> Any:
        seen.append(batches.look_ahead)
        return size(network, batches, generator, head=head, density=density)

    size = outside.size
    monkeypatch.setattr(outside, "size", looks)
    scored(SIZE, lookahead_steps=3)
    assert seen and not any(seen)


def test_a_criterion_from_outside_is_a_rival_of_the_scorer() -> None:
    same = {"target": "net", "dataset": "digits", "density": 0.1, "seed": 0}
    found = {"snip": 0.6, SIZE: 0.7, f"{DECAY}()": 0.95, "scorer": 0.75, "ticket": 0.8}
    arms = [{**same, "method": method, "control": None, "accuracy": accuracy} for method, accuracy in found.items()]
    (gap,) = gaps([*arms, {**same, "method": SIZE, "control": "shuffle", "accuracy": 0.9}])
    assert gap.best_name == SIZE and gap.closure == pytest.approx(0.5)  # (.75 - .7) / (.8 - .7)
