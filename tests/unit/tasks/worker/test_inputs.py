"""What crosses to Ray: plain data that comes back as the record it was, and is refused in one line where it is not one."""

import json
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autosparse.flows.recipes import small_cifar_scorer, smoke
from autosparse.models.errors import SpecError
from autosparse.models.specs.fields import Spec, from_plain, to_plain
from autosparse.models.specs.run_specs import JobSpec
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths
from autosparse.tasks.engine.run import job_config
from autosparse.tasks.prune_round import round_inputs
from autosparse.tasks.worker.extract_features import FeaturesInputs, Source
from autosparse.tasks.worker.fit_scorer import FitInputs
from autosparse.tasks.worker.inputs import Launch, RunInputs, config_of, launched, read_sent
from autosparse.tasks.worker.inspect_data import DataInputs, Named
from autosparse.tasks.worker.irp_round import RoundInputs
from autosparse.tasks.worker.job import Job, body
from autosparse.tasks.worker.probe_pair import PairInputs
from autosparse.tasks.worker.retrain_arm import ArmInputs, Level
from autosparse.tasks.worker.score_target import ScoringInputs

SPEC = small_cifar_scorer()
TARGET = SPEC.fanout.targets[0]
NETWORK, TRAIN = TARGET.network, SPEC.fanout.train
ARM = ArmInputs(
    narrow=None,
    initial=None,
    network=NETWORK,
    data=SPEC.data,
    train=TRAIN,
    seed=10,
    control=None,
    mask="mask",
    method=None,
    state=None,
    start_step=0,
    compact=False,
    step="arm",
)
ROUND = round_inputs(SPEC, RunPaths("test"), NETWORK, 0, 1)
SCORING = ScoringInputs(
    target=TARGET,
    data=SPEC.data,
    seed=10,
    method="snip",
    densities=(0.1, 0.02),
    min_per_layer=1,
    controls=("shuffle",),
    repair=False,
    train=TRAIN,
    scorer=None,
    step="scores",
)
KINDS: list[Spec] = [
    DataInputs(data=SPEC.data, networks=(Named(field="irp.networks.0", network=SPEC.irp.networks[0]),)),
    ROUND,
    round_inputs(SPEC, RunPaths("test"), NETWORK, 0, 0),
    FeaturesInputs(irp=SPEC.irp, data=SPEC.data, sources=(Source(network=NETWORK, seed=0, folder="source"),), fingerprint="abc"),
    FitInputs(scorer=SPEC.scorer, dataset="/features", data="digits", folder="scorer"),
    SCORING,
    ARM,
    replace(ARM, mask=None, method=Level(name="grda(c=0.05,mu=0.8)", density=None)),
    PairInputs(network=NETWORK, data=SPEC.data, train=TRAIN, valley=SPEC.valley, seed=10, first="one", second="two"),
]


def name(inputs: Spec) -> str:
    return type(inputs).__name__


@pytest.mark.parametrize("inputs", KINDS, ids=name)
def test_what_crosses_is_plain_and_comes_back_as_it_was(inputs: Spec, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    events: Any = SimpleNamespace()
    config = job_config(SPEC, store, RunPaths("test"), inputs)
    assert json.loads(json.dumps(config)) == config
    sent = read_sent(launched(config, Launch(job="j", resources=JobSpec(workers=2), earlier=("a", "b")), events))
    assert from_plain(type(inputs), sent.inputs) == inputs
    assert sent.run == RunInputs(storage=store.root, name="test", scoring=SPEC.scoring)
    assert (sent.launch.job, sent.launch.resources.workers, sent.launch.earlier) == ("j", 2, ("a", "b"))
    assert sent.events is events


@pytest.mark.parametrize("inputs", KINDS, ids=name)
def test_no_key_may_be_missing_and_none_be_added(inputs: Spec) -> None:
    plain = to_plain(inputs)
    for field in fields(inputs):  # type: ignore[arg-type]
        with pytest.raises(SpecError, match=rf"^job\.inputs\.{field.name}: missing; allowed: "):
            from_plain(type(inputs), {key: value for key, value in plain.items() if key != field.name}, "job.inputs")
    with pytest.raises(SpecError, match=r"^job\.inputs\.qqq: 'qqq' is not known; known: "):
        from_plain(type(inputs), plain | {"qqq": 1}, "job.inputs")


@pytest.mark.parametrize(
    ("inputs", "changes", "message"),
    [
        (ROUND, {"seed": -1}, "seed: -1 is not allowed; allowed: >= 0"),
        (ROUND, {"index": 0}, "step_before: 'runs/test/irp/"),
        (ROUND, {"step_before": None}, "step_before: None is not allowed; allowed: the step of the round before round 1, none for round 0"),
        (ROUND, {"ticket_densities": [2]}, "ticket_densities[0]: 2.0 is not allowed; allowed: > 0 and <= 1"),
        (ROUND, {"step": 3}, "step: 3 is not allowed; allowed: a value of type str"),
        (SCORING, {"method": "scorer"}, "scorer: None is not allowed; allowed: a folder for scorer and scorer_growth, none for others"),
        (SCORING, {"scorer": "scorer"}, "scorer: 'scorer' is not allowed; allowed: a folder for scorer and scorer_growth, none for others"),
        (SCORING, {"densities": 0.1}, "densities: 0.1 is not allowed; allowed: a list, such as [a,b] or [a]"),
        (SCORING, {"repair": "no"}, "repair: 'no' is not allowed; allowed: a value of type bool"),
        (SCORING, {"target": {"network": {"name": "resnet9"}}}, "target.network.name: 'resnet9' is not known; did you mean"),
        (ARM, {"start_step": -1}, "start_step: -1 is not allowed; allowed: >= 0"),
        (ARM, {"control": "shufle"}, "control: 'shufle' is not known; did you mean 'shuffle'?"),
        (ARM, {"control": "rescale", "mask": None}, "mask: None is not allowed; allowed: the key of a mask for the control 'rescale'"),
        (ARM, {"method": {"name": "grda()", "density": None}}, "mask: 'mask' is not allowed; allowed: none for grda(), which decides"),
        (ARM, {"method": {"name": "grda()"}}, "method.density: missing"),
        (ARM, {"method": "grda()"}, "method: 'grda()' is not allowed; allowed: an object with fields"),
        (KINDS[3], {"sources": [{"network": to_plain(NETWORK), "seed": 0}]}, "sources.0.folder: missing"),
        (KINDS[4], {"scorer": to_plain(SPEC.scorer) | {"tilt": [1] * 6}}, "scorer.tilt: [1.0, 1.0, 1.0, 1.0, 1.0, 1.0] is not allowed"),
    ],
)
def test_bad_inputs_name_field_value_and_what_is_allowed(inputs: Spec, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as refused:
        from_plain(type(inputs), to_plain(inputs) | changes, "job.inputs")
    assert str(refused.value).startswith(f"job.inputs.{message}")
    assert "\n" not in str(refused.value)


@body(DataInputs)
def looked(job: Job, inputs: DataInputs) -> dict[str, Any]:
    return {
        "name": inputs.data.name,
        "job": job.launch.job,
        "run": job.run.name,
        "root": job.store.root,
        "cpus": job.resources.cpus_per_worker,
    }


def sent(folder: Path, told: list[dict[str, Any]], inputs: Spec | None = None) -> dict[str, Any]:
    config = config_of(
        RunInputs(storage=str(folder), name="test", scoring=SPEC.scoring), inputs or DataInputs(data=smoke().data, networks=())
    )
    return launched(config, Launch(job="look", resources=JobSpec()), SimpleNamespace(put=told.append))


def test_a_body_is_handed_its_inputs_and_its_job(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    assert looked(sent(tmp_path, told)) == {"name": "digits", "job": "look", "run": "test", "root": str(tmp_path), "cpus": 1}
    assert told == [{"job": "look", "kind": "end"}]


def test_inputs_of_another_job_go_back_as_an_error_that_is_not_retried(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    failure = looked(sent(tmp_path, told, PairInputs(**{one.name: getattr(KINDS[-1], one.name) for one in fields(PairInputs)})))["error"]
    assert failure["type"] == "SpecError"
    assert "job.inputs.valley: 'valley' is not known; known: data, networks" in failure["message"].splitlines()
    assert told == [{"job": "look", "kind": "end"}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"launch": None}, r"^job\.launch: None is not allowed; allowed: an object with fields"),
        ({"faults": []}, r"^job\.faults: 'faults' is not known; known: events, inputs, launch, run"),
        ({"inputs": [1]}, r"^job\.inputs: \[1\] is not allowed; allowed: a value of type dict"),
        ({"run": {"storage": "s", "name": "n"}}, r"^job\.run\.scoring: missing"),
        ({"launch": {"job": "j", "resources": {"wokers": 2}}}, r"^job\.launch\.resources\.wokers: 'wokers' is not known"),
    ],
)
def test_a_broken_envelope_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        looked(sent(tmp_path, []) | changes)
    for key in ("run", "inputs", "launch", "events"):
        with pytest.raises(SpecError, match=rf"^job\.{key}: missing"):
            looked({name: part for name, part in sent(tmp_path, []).items() if name != key})


def test_every_kind_of_job_has_its_own_inputs() -> None:
    kinds = (DataInputs, RoundInputs, FeaturesInputs, FitInputs, ScoringInputs, ArmInputs, PairInputs)
    assert {type(inputs) for inputs in KINDS} == set(kinds)
