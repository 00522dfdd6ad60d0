"""What a training may not ask for is said before anything starts."""

from dataclasses import replace
from typing import Any

import pytest

from autosparse.flows.recipes import smoke
from autosparse.models.errors import SpecError
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fanout import TargetSpec
from autosparse.models.specs.fields import override
from autosparse.models.specs.run_specs import DataSpec, NetworkSpec
from autosparse.tasks.checks.preflight import check_spec

MINE = "tests.plugins.tuned"
DIGITS = smoke().data


def own(task: str, *methods: str, **changes: Any) -> ExperimentSpec:
    """smoke on a task of one's own, with dotted changes."""
    base, network = smoke(), NetworkSpec(name=f"{MINE}:network")
    fanout = replace(base.fanout, targets=(TargetSpec(network=network),), methods=methods or ("snip",))
    small = {f"{part}.train.batch_size": 16 for part in ("irp", "fanout")}
    spec = replace(base, data=DataSpec(name=f"{MINE}:{task}"), irp=replace(base.irp, networks=(network,)), fanout=fanout)
    return override(spec, small | changes)


def said(spec: ExperimentSpec) -> str:
    with pytest.raises(SpecError) as caught:
        check_spec(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def on_digits(**changes: Any) -> ExperimentSpec:
    return override(smoke(), {path.replace("__", "."): value for path, value in changes.items()})


def test_what_a_training_may_set_passes() -> None:
    everything = {"clip": 1.0, "accumulate": 4, "label_smoothing": 0.1, "mixup": 0.2, "evaluate_every": 3, "optimizer": "AdamW"}
    check_spec(override(smoke(), {f"irp.train.{name}": value for name, value in everything.items()}))
    changes = {"fanout.methods": ["snip", "rigl"], **{f"fanout.train.{name}": value for name, value in everything.items()}}
    check_spec(override(smoke(), {**changes, "fanout.targets.0.network.name": "resnet8"}))
    check_spec(own("Task"))
    check_spec(own("Plain", **{"fanout.train.optimizer": "adamw", "fanout.train.clip": 1.0, "fanout.train.settings.betas": [0.9, 0.95]}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"irp__train__accumulate": 64, "irp__job__workers": 4},
            "irp.train.accumulate: 64 is not allowed; allowed: a number that divides the 32 examples of a worker",
        ),
        (
            {"fanout__train__optimizer": "adamw", "fanout__train__settings": {"betas": [1, 2]}},
            'fanout.train.settings: {"betas": [1, 2]} is not allowed; allowed: what torch.optim.AdamW takes (Invalid beta parameter',
        ),
        (
            {"fanout__methods": ["snip", "grda(c=0.01)"], "fanout__train__optimizer": "adamw"},
            "fanout.train.optimizer: 'adamw' is not allowed; allowed: 'sgd' beside grda(c=0.01), which brings optimizer of its own",
        ),
        (
            {"fanout__methods": ["fwdgrad(estimator=fg_w)"], "fanout__train__mixup": 0.5},
            "fanout.train.mixup: 0.5 is not allowed; allowed: 0.0 beside fwdgrad(estimator=fg_w), which brings gradient of its own",
        ),
        (
            {"fanout__methods": ["fw_rnn(inner=5)"], "fanout__train__clip": 1},
            "fanout.train.clip: 1.0 is not allowed; allowed: None beside fw_rnn(inner=5), which brings wrapper of its own",
        ),
    ],
)
def test_what_nothing_would_read_is_refused(changes: dict[str, Any], message: str) -> None:
    assert said(on_digits(**changes)).startswith(message)


def test_fields_of_images_are_refused_beside_a_task_of_ones_own() -> None:
    assert said(own("Plain", **{"irp.train.label_smoothing": 0.1})) == (
        f"irp.train.label_smoothing: 0.1 is not allowed; allowed: 0.0 beside {MINE}:Plain"
    )
    spec = own("Plain", **{"fanout.train.mixup": 0.1})
    assert said(spec) == f"fanout.train.mixup: 0.1 is not allowed; allowed: 0.0 beside {MINE}:Plain"
    target = TargetSpec(network=NetworkSpec(name="lenet300-100"), data=DIGITS)
    check_spec(replace(spec, fanout=replace(spec.fanout, targets=(target,))))  # the task is of the rounds alone


def test_a_task_with_an_optimizer_leaves_no_room_for_another() -> None:
    assert said(own("Task", **{"fanout.train.optimizer": "adam"})) == (
        f"fanout.train.optimizer: 'adam' is not allowed; allowed: 'sgd' beside {MINE}:Task"
    )
    assert said(own("Task", "grda(c=0.01)")).endswith(f"is not allowed; it brings an optimizer, and so does {MINE}:Task")
    check_spec(own("Plain", "grda(c=0.01)"))
