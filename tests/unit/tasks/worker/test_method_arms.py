"""Methods of training as arms of the fan-out: names, keys, counts, refusals before anything starts."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

import pytest
from mlflow.utils.validation import _validate_metric_name
from pydantic import TypeAdapter, ValidationError

from autosparse.flows.console import expected
from autosparse.flows.recipes import smoke
from autosparse.models.arms.arm import Arm
from autosparse.models.arms.plan import densities_of, methods_of
from autosparse.models.errors import SpecError
from autosparse.models.methods import registry
from autosparse.models.methods.contract import Method, Parts, Settings, Setup
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import fingerprint, from_plain, override, to_plain
from autosparse.models.specs.rules import Range
from autosparse.storage.paths import RunPaths, method_key
from autosparse.storage.store import check_key
from autosparse.tasks.checks.preflight import check_spec
from autosparse.tasks.results.rows import metric_name
from autosparse.tasks.retrain_arm import settings_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Knob(Settings):
    c: Annotated[float, Range(least=0)] = 0.005
    mu: float = 0.51


class Source:
    def fill(self, *unused: Any) -> Any: ...


def only_dense(setup: Setup, settings: Knob) -> str | None:
    if setup.density is not None and setup.density < 0.05:
        return f"density: {setup.density:g} is not allowed; allowed: >= 0.05"
    return None if any("Conv" in type(module).__name__ for module in setup.network.modules()) else "network: has no convolution"


@pytest.fixture(autouse=True)
def two_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """`knob` has no density target and two levels, `target` has one level, one target, and a gradient of its own."""
    knob = Method(settings=Knob, levels=(Knob(), Knob(mu=0.8)), by_density=False, parts=lambda *unused: Parts(), card="a knob")
    target = Method(
        settings=Knob,
        levels=(Knob(),),
        by_density=True,
        parts=lambda *unused: Parts(gradient=Source()),
        card="a target",
        refuses=only_dense,
    )
    monkeypatch.setitem(registry.METHODS, "knob", knob)
    monkeypatch.setitem(registry.METHODS, "target", target)


def spec(*methods: str, **changes: Any) -> ExperimentSpec:
    return override(smoke(), {"fanout.methods": list(methods), **changes})


def test_a_bare_name_becomes_its_levels_and_a_synonym_its_name() -> None:
    assert spec("snip", "knob", "target", "autos").fanout.methods == ("snip", "knob()", "knob(mu=0.8)", "target", "scorer")


def test_one_spelling_one_fingerprint() -> None:
    same = [spec("knob( mu=.80 , c=5e-3)"), spec("knob(mu=0.8)"), spec("knob(c=0.005,mu=8e-1)")]
    assert {one.fanout.methods for one in same} == {("knob(mu=0.8)",)}
    assert len({fingerprint(one) for one in same}) == 1
    assert spec("knob(c=1e+20)").fanout.methods == ("knob(c=1e20)",)  # + is the sign of controls
    assert fingerprint(spec("autos")) == fingerprint(spec("scorer"))
    assert spec("target()").fanout.methods == spec("target").fanout.methods == ("target",)
    assert from_plain(ExperimentSpec, to_plain(spec("knob", "target"))) == spec("knob", "target")


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (["sinp"], "fanout.methods[0]: 'sinp' is not known; did you mean 'snip'?"),
        (["snip", "knub"], "fanout.methods[1]: 'knub' is not known; did you mean 'knob'?"),
        (["atuos"], "did you mean 'autos'?"),
        (["snip(c=1)"], "fanout.methods[0]: 'snip(c=1)' is not known; did you mean 'snip'?"),
        (["knob(c=-1)"], "fanout.methods[0].knob.c: -1.0 is not allowed; allowed: >= 0"),
        (["knob(k=1)"], "fanout.methods[0].knob.k: 'k' is not known"),
        (["knob(c"], "fanout.methods[0]: 'knob(c' is not allowed; allowed: name or name(field=value,...)"),
        (["knob", "knob(mu=0.8)"], "fanout.methods: ['knob()', 'knob(mu=0.8)', 'knob(mu=0.8)'] is not allowed"),
        (["scorer", "autos"], "at least one entry, no two the same"),
        ([3], "fanout.methods[0]: 3 is not allowed; allowed: a value of type str"),
    ],
)
def test_bad_names_are_said_in_one_line(methods: list[Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec(*methods)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pydantic_takes_the_same_names() -> None:
    adapter = TypeAdapter(ExperimentSpec)
    plain = to_plain(smoke())
    assert adapter.validate_python(plain | {"fanout": {**plain["fanout"], "methods": ["knob"]}}) == spec("knob")
    with pytest.raises(ValidationError, match=r"knob\.c: -1"):
        adapter.validate_python(plain | {"fanout": {**plain["fanout"], "methods": ["knob(c=-1)"]}})


def test_a_target_may_have_methods_of_its_own() -> None:
    base = smoke().fanout.targets[0].network
    two = [{"network": to_plain(base)}, {"network": {"name": "resnet8", "width": 4}, "methods": ["knob(mu=0.8)"]}]
    found = spec("snip", "target", **{"fanout.targets": two, "fanout.densities": [0.5, 0.1]})
    assert [methods_of(found.fanout, target) for target in found.fanout.targets] == [("snip", "target"), ("knob(mu=0.8)",)]
    assert found.fanout.all_methods == ("snip", "target", "knob(mu=0.8)")
    assert [densities_of(found.fanout, method) for method in found.fanout.all_methods] == [(0.5, 0.1), (0.5, 0.1), (None,)]
    assert expected(found)["arms"] == 2 + 2 + 1 + 2  # snip, target, knob, two dense
    assert expected(override(found, {"fanout.controls": ["shuffle"]}))["arms"] == 4 + 2 + 1 + 2  # none of methods that train
    with pytest.raises(SpecError, match=r"fanout\.targets\.1\.methods: .* no two the same"):
        override(found, {"fanout.targets.1.methods": ["scorer", "autos"]})
    with pytest.raises(SpecError, match="seeds the scorer has not seen"):
        override(found, {"fanout.targets.1.methods": ["autos"], "fanout.seeds": [0]})


NAMES = [
    "grda",
    "grda()",
    "grda(c=0.02,mu=0.8)",
    "grda(c=-0.02,mu=0.8)",
    "grda(c=1e-05)",
    "grda(c=1e20)",
    "l0(unit=weight)",
    "l0(tied=false)",
]


def test_keys_are_valid_and_differ() -> None:
    assert method_key("grda(c=0.02,mu=0.8)") == "grda-c-0.02-mu-0.8"
    assert method_key("snip") == "snip"
    keys = [RunPaths("x").arm("net", 1, name, density) for name in NAMES for density in (None, 0.1)]
    assert len(set(keys)) == len(keys)
    assert keys[5] == "runs/x/fanout/net/seed1/grda-c-0.02-mu-0.8/density-0.1"
    assert keys[4].endswith("/density-own")
    for key in keys:
        check_key(key)


def test_metric_names_are_valid_and_differ() -> None:
    rows = [{"target": "net", "method": name, "control": None, "density": density} for name in NAMES for density in (None, 0.1)]
    names = [metric_name(row) for row in rows]
    assert len(set(names)) == len(names)
    for name in names:
        _validate_metric_name(name)


def test_an_arm_says_how_it_is_trained() -> None:
    arm = Arm(target="net", method="knob(mu=0.8)", seed=3)
    assert arm.title == "net knob(mu=0.8) seed 3"
    assert settings_of(arm) == {"c": 0.005, "mu": 0.8}
    assert settings_of(replace(arm, method="snip", density=0.1)) is None


CONVOLUTIONAL = {"fanout.targets": [{"network": {"name": "resnet8", "width": 4}}]}


def test_what_a_method_refuses_is_said_before_anything_starts() -> None:
    check_spec(spec("knob"))
    check_spec(spec("target", **CONVOLUTIONAL))
    with pytest.raises(SpecError, match=r"^fanout.methods: 'target' on lenet300-100 at density 0.1 is not allowed; network: has no conv"):
        check_spec(spec("target"))
    with pytest.raises(SpecError, match=r"'target' on resnet8-w4 at density 0.02 is not allowed; density: 0.02 is not allowed; .*>= 0.05"):
        check_spec(spec("target", **CONVOLUTIONAL, **{"fanout.densities": [0.1, 0.02]}))


def test_a_changed_step_is_for_one_worker() -> None:
    check_spec(spec("knob", **{"fanout.job.workers": 2}))
    with pytest.raises(SpecError, match=r"fanout.job.workers: 2 is not allowed; allowed: 1 for target, which replaces the gradient"):
        check_spec(spec("target", **CONVOLUTIONAL, **{"fanout.job.workers": 2}))
