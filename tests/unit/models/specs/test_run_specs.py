"""Specs: allowed values, paths in errors, overrides, fingerprints, what cannot be combined."""

import dataclasses
import json

import pytest
from pydantic import TypeAdapter, ValidationError

from autosparse.flows.recipes import RECIPES, demo, recipe, small_cifar, smoke
from autosparse.models.errors import SpecError
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import fingerprint, from_plain, override, to_plain
from autosparse.models.specs.run_specs import JobSpec, NetworkSpec


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json(name: str) -> None:
    spec = recipe(name)
    again = from_plain(ExperimentSpec, json.loads(json.dumps(to_plain(spec))))
    assert again == spec
    assert fingerprint(again) == fingerprint(spec)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"irp.rounds": 0}, "irp.rounds: 0 is not allowed; allowed: >= 1"),
        ({"irp.rounds": 2.5}, "irp.rounds: 2.5 is not allowed; allowed: a value of type int"),
        ({"irp.rounds": True}, "irp.rounds: True is not allowed"),
        ({"irp.final_density": 0}, "irp.final_density: 0.0 is not allowed; allowed: > 0 and <= 1"),
        ({"irp.final_density": 1.01}, "irp.final_density: 1.01 is not allowed"),
        ({"irp.final_density": float("nan")}, "irp.final_density: nan is not allowed"),
        ({"irp.criterion": "synflow"}, "irp.criterion: 'synflow' is not allowed; allowed: magnitude | snip"),
        ({"irp.train.lr": -1}, "irp.train.lr: -1.0 is not allowed; allowed: > 0"),
        ({"irp.networks": []}, "irp.networks: [] is not allowed; allowed: at least one entry"),
        ({"irp.seeds": [1, 1]}, "irp.seeds: [1, 1] is not allowed; allowed: at least one entry, no two the same"),
        ({"irp.networks.0.name": "resnet9"}, "irp.networks.0.name: 'resnet9' is not known; did you mean"),
        ({"irp.networks.3.name": "resnet8"}, "irp.networks.3.name: '3' is not known"),
        ({"fanout.methods": ["sinp"]}, "did you mean 'snip'?"),
        ({"fanout.controls": ["shufle"]}, "fanout.controls[0]: 'shufle' is not known; did you mean 'shuffle'?"),
        ({"fanout.controls": ["shuffle", "shuffle"]}, "fanout.controls: ['shuffle', 'shuffle'] is not allowed; allowed: no two the same"),
        ({"fanout.repair": 1}, "fanout.repair: 1 is not allowed; allowed: a value of type bool"),
        ({"fanout.compact": "yes"}, "fanout.compact: 'yes' is not allowed; allowed: a value of type bool"),
        ({"fanout.densities": [0.1, 2]}, "fanout.densities[1]: 2.0 is not allowed"),
        ({"fanout.seeds": [0]}, "fanout.seeds: [0] is not allowed; allowed: seeds the scorer has not seen"),
        ({"scorer.holdout_seeds": [9]}, "scorer.holdout_seeds: [9] is not allowed"),
        ({"scorer.kind": "forest"}, "scorer.kind: 'forest' is not known"),
        (
            {"data.path": "s3://KEY:SECRET@bucket/x"},
            "data.path: 's3://***@bucket/x' is not allowed; allowed: an address without credentials",
        ),
        ({"irp.roundz": 3}, "did you mean 'rounds'?"),
        ({"irp.rounds.deep": 3}, "irp.rounds.deep: 'deep' is not known"),
        ({"irp.train.optimizer": "admw"}, "irp.train.optimizer: 'admw' is not known; did you mean 'adamw'?"),
        ({"irp.train.optimizer": "LBFGS"}, "irp.train.optimizer: 'lbfgs' is not allowed; allowed: adadelta | adafactor"),
        ({"irp.train.optimizer": 3}, "irp.train.optimizer: 3 is not allowed; allowed: a value of type str"),
        (
            {"irp.train.optimizer": "adamw", "irp.train.momentum": 0.9},
            "irp.train.momentum: 0.9 is not allowed; allowed: 0.0 beside optimizer 'adamw', which has no momentum",
        ),
        (
            {"irp.train.optimizer": "rmsprop", "irp.train.nesterov": True},
            "irp.train.nesterov: True is not allowed; allowed: False beside optimizer 'rmsprop', which has no nesterov",
        ),
        (
            {"irp.train.optimizer": "adamw", "irp.train.settings.betaz": [0.9, 0.95]},
            "irp.train.settings.betaz: 'betaz' is not known; did you mean 'betas'?",
        ),
        ({"irp.train.settings.weight_decay": 0}, "irp.train.settings.weight_decay: 0 is not allowed; allowed: nothing here; the field"),
        ({"irp.train.settings.maximize": True}, "irp.train.settings.maximize: 'maximize' is not known"),
        ({"irp.train.settings.fused": 1}, "irp.train.settings.fused: 1 is not allowed; allowed: true | false"),
        ({"irp.train.settings": [1]}, "irp.train.settings: [1] is not allowed; allowed: a JSON object"),
        ({"irp.train.clip": 0}, "irp.train.clip: 0.0 is not allowed; allowed: > 0"),
        ({"irp.train.accumulate": 3}, "irp.train.accumulate: 3 is not allowed; allowed: a number that divides batch_size 128"),
        ({"irp.train.label_smoothing": 1}, "irp.train.label_smoothing: 1.0 is not allowed; allowed: >= 0 and < 1"),
        ({"irp.train.mixup": -0.1}, "irp.train.mixup: -0.1 is not allowed; allowed: >= 0"),
        ({"irp.train.evaluate_every": 0}, "irp.train.evaluate_every: 0 is not allowed; allowed: >= 1"),
        ({"data.augment": "mixup"}, "data.augment: 'mixup' is not allowed; allowed: none | shift_flip | crop_flip | shift"),
    ],
)
def test_bad_values_name_field_value_and_what_is_allowed(changes: dict, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        override(smoke(), changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_unknown_keys_name_their_path() -> None:
    plain = to_plain(smoke())
    del plain["irp"]["rounds"]
    with pytest.raises(SpecError, match=r"irp\.rounds: missing"):
        from_plain(ExperimentSpec, plain)
    with pytest.raises(SpecError, match=r"irp\.job\.wokers: 'wokers' is not known; did you mean 'workers'"):
        from_plain(ExperimentSpec, to_plain(smoke()) | {"irp": {**to_plain(smoke())["irp"], "job": {"wokers": 2}}})


def test_override_changes_what_it_names_and_nothing_else() -> None:
    base = smoke()
    changed = override(base, {"irp.rounds": 7, "irp.networks.0.prune_head": False})
    assert changed.irp.rounds == 7
    assert changed.irp.networks[0] == dataclasses.replace(base.irp.networks[0], prune_head=False)
    assert dataclasses.replace(changed, irp=base.irp) == base


def test_fingerprint_ignores_where_and_how_fast_but_not_what() -> None:
    base = small_cifar()
    assert fingerprint(override(base, {"data.path": "/somewhere"})) == fingerprint(base)
    assert fingerprint(override(base, {"data.train_limit": 100})) != fingerprint(base)
    assert fingerprint(override(base, {"irp.job.cpus_per_worker": 1})) != fingerprint(base)  # sums depend on the threads
    assert fingerprint(override(base, {"irp.train.lr": 1})) == fingerprint(override(base, {"irp.train.lr": 1.0}))


def test_controls_repair_and_compact_name_other_results_and_their_defaults_none() -> None:
    base = small_cifar()
    assert fingerprint(override(base, {"fanout.controls": [], "fanout.repair": False, "fanout.compact": False})) == fingerprint(base)
    changed = [
        override(base, {"fanout.controls": ["shuffle"]}),
        *(override(base, {f"fanout.{name}": True}) for name in ("repair", "compact")),
    ]
    assert len({fingerprint(base), *map(fingerprint, changed)}) == 4
    plain = to_plain(base)
    del plain["fanout"]["controls"], plain["fanout"]["repair"], plain["fanout"]["compact"]  # as runs were stored before
    assert from_plain(ExperimentSpec, plain) == base


def test_what_a_training_may_set_names_other_results_and_its_defaults_none() -> None:
    base, plain = small_cifar(), to_plain(small_cifar())
    new = {"settings.dampening": 0.0, "clip": 1.0, "accumulate": 2, "label_smoothing": 0.1, "mixup": 0.2, "evaluate_every": 2}
    changed = [override(base, {f"irp.train.{name}": value}) for name, value in new.items()]
    assert len({fingerprint(base), *map(fingerprint, changed)}) == 7
    for name in ("optimizer", *(name.partition(".")[0] for name in new)):
        del plain["irp"]["train"][name]  # as runs were stored before
    assert from_plain(ExperimentSpec, plain) == base


def test_momentum_of_a_recipe_goes_with_its_sgd_where_another_optimizer_is_asked_for() -> None:
    base = smoke()
    train = override(base, {"irp.train.optimizer": "AdamW", "irp.train.lr": 1e-3}).irp.train
    assert (train.optimizer, train.momentum, train.nesterov) == ("adamw", 0.0, False)
    assert override(base, {"irp.train.optimizer": "adamw"}).fanout == base.fanout
    train = override(base, {"fanout.train.optimizer": "RMSprop"}).fanout.train
    assert (train.momentum, train.nesterov) == (0.9, False)  # which has momentum, but not Nesterov's
    again = {"irp.train.optimizer": "adamw", "irp.train.momentum": 0.0, "irp.train.nesterov": False}
    assert override(base, again) == override(base, {"irp.train.optimizer": "adamw"})
    spec = override(base, {"irp.train.optimizer": "adamw"})
    assert (
        from_plain(ExperimentSpec, json.loads(json.dumps(to_plain(spec))))
        == spec
        == TypeAdapter(ExperimentSpec).validate_python(to_plain(spec))
    )
    assert override(spec, {"irp.rounds": 3}).irp.train == spec.irp.train


def test_pydantic_refuses_what_the_spec_refuses() -> None:
    adapter = TypeAdapter(ExperimentSpec)
    assert adapter.validate_python(to_plain(demo())) == demo()
    with pytest.raises(ValidationError, match="rounds: 0 is not allowed"):
        adapter.validate_python(to_plain(demo()) | {"irp": {**to_plain(demo().irp), "rounds": 0}})
    with pytest.raises(ValidationError, match="epohcs"):
        adapter.validate_python(to_plain(demo()) | {"epohcs": 3})


def test_network_labels() -> None:
    assert NetworkSpec(name="resnet8", width=32, stem_stride=2).label == "resnet8-w32-s2"
    assert NetworkSpec(name="torchvision:resnet18", init="own").label == "torchvision-resnet18-own"


def test_fractions_of_a_gpu_are_allowed() -> None:
    assert JobSpec(gpus_per_worker=0.25).gpus_per_worker == 0.25
