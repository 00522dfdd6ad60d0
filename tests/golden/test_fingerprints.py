"""None of these names may change: results are stored under them."""

import pytest

from autosparse.flows.recipes import recipe
from autosparse.models.specs.fields import fingerprint, override
from autosparse.models.specs.run_specs import NetworkSpec


@pytest.mark.parametrize(
    ("name", "expected"), [("small_cifar", "3d4daf89dc2a"), ("cifar10_resnet18", "9f1c0857c28c"), ("smoke", "ecf9098e0d08")]
)
def test_recipes_keep_their_names(name: str, expected: str) -> None:
    assert fingerprint(recipe(name)) == expected


def test_a_network_keeps_its_name() -> None:
    assert fingerprint(NetworkSpec(name="lenet300-100")) == "113e12348a7c"


def test_what_only_says_how_long_to_wait_is_no_part_of_a_name() -> None:
    assert fingerprint(override(recipe("smoke"), {"irp.job.step_timeout": 5.0})) == fingerprint(recipe("smoke"))
    assert fingerprint(override(recipe("smoke"), {"irp.job.compile": True})) != fingerprint(recipe("smoke"))
