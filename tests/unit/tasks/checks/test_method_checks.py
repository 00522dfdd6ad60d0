"""What a grain cannot do on a target is said before anything starts."""

from dataclasses import replace
from typing import Any

import pytest

from autosparse.flows.recipes import smoke
from autosparse.models.errors import SpecError
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fanout import TargetSpec
from autosparse.models.specs.run_specs import NetworkSpec
from autosparse.tasks.checks.method_checks import check_methods
from autosparse.tasks.checks.networks import Seen, build


def spec(network: str, **changes: Any) -> ExperimentSpec:
    fanout = replace(smoke().fanout, targets=(TargetSpec(network=NetworkSpec(name=network)),), **changes)
    return replace(smoke(), fanout=fanout)


def check(found: ExperimentSpec) -> None:
    seen = Seen((1, 8, 8), 10)
    check_methods(found, {target: (build(target.network, seen), seen) for target in found.fanout.targets})


def test_grains_and_narrow_networks_that_fit_pass() -> None:
    check(spec("resnet8", methods=("narrow", "snip(grain=channels)", "synflow(grain=mixed)", "snip(grain=kernels)"), shares=(0.5, 0.1)))


def test_a_network_without_channels_that_can_leave_is_refused() -> None:
    with pytest.raises(
        SpecError, match=r"^fanout.methods: 'snip\(grain=channels\)' on row-lstm is not allowed; network: 'RowLSTM'.*"
    ) as error:
        check(spec("row-lstm", methods=("snip(grain=channels)",)))
    assert "\n" not in str(error.value)


def test_a_share_below_one_channel_per_layer_is_refused() -> None:
    with pytest.raises(SpecError, match=r"'snip\(grain=channels\)' on resnet8 is not allowed; density: 0\.0001"):
        check(spec("resnet8", methods=("snip(grain=channels)",), shares=(0.5, 0.0001)))
    with pytest.raises(SpecError, match=r"'narrow' on lenet300-100 is not allowed; density: 1e-05"):
        check(spec("lenet300-100", methods=("narrow",), shares=(0.00001,)))
