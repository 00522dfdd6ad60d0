"""None of these names may change: results are stored under them."""

from typing import Any

import pytest

from autosparse.flows.recipes import recipe
from autosparse.models.specs.fields import fingerprint, override
from autosparse.models.specs.run_specs import NetworkSpec

BEFORE = {  # the methods of recipes until narrower dense networks came to their tables
    "small_cifar": ["random", "magnitude", "snip", "grasp", "synflow", "scorer"],
    "cifar10_resnet18": ["random", "erk", "magnitude", "snip", "grasp", "synflow", "scorer"],
}


@pytest.mark.parametrize(
    ("name", "expected"), [("small_cifar", "c9761686cfe1"), ("cifar10_resnet18", "437d7c16999b"), ("smoke", "ecf9098e0d08")]
)
def test_recipes_keep_their_names(name: str, expected: str) -> None:
    assert fingerprint(recipe(name)) == expected


@pytest.mark.parametrize(("name", "expected"), [("small_cifar", "3d4daf89dc2a"), ("cifar10_resnet18", "9f1c0857c28c")])
def test_runs_from_before_the_baseline_are_found_by_their_methods(name: str, expected: str) -> None:
    assert fingerprint(override(recipe(name), {"fanout.methods": BEFORE[name]})) == expected


LEARNED = {"scorer.allocation": "learned", "scorer.sharpness": 2.0, "scorer.tilt": [0, 0, 0, 0, 0, 1.2]}
PATHS = {
    **{"scorer.allocation": "paths", "scorer.contrast": 2, "scorer.contrast_ahead": 3.0, "scorer.blend": 0.25},
    **{"scorer.candidates": 0.5, "scorer.hubs_ahead": 0.75},
}
IGNORED = {"scorer.allocation": "learned", "scorer.contrast": 2.0}  # what was stored of this setting was never read


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("smoke", {"scorer.allocation": "global"}, "97377bcc4280"),
        ("smoke", {"scorer.allocation": "learned"}, "36f264ee5a83"),
        ("smoke", LEARNED, "3c08b3071f56"),
        ("smoke", PATHS, "c2f6953f6ae0"),
        ("smoke", IGNORED | {"scorer.unused": ["contrast", "candidates", "hubs_ahead"]}, "f25bf4176340"),
        ("small_cifar", {"scorer.allocation": "learned"}, "34476a996575"),
        ("small_cifar", LEARNED, "bd767a65022e"),
        ("small_cifar", {"scorer.allocation": "paths"}, "02408567a0e9"),
        ("small_cifar", PATHS, "2f81831043bf"),
        ("small_cifar", IGNORED | {"scorer.unused": ["contrast"]}, "b1cea2d5d855"),
    ],
)
def test_heads_of_scorers_keep_their_names(name: str, changes: dict[str, object], expected: str) -> None:
    methods: dict[str, Any] = {"fanout.methods": BEFORE[name]} if name in BEFORE else {}
    assert fingerprint(override(recipe(name), {**changes, **methods})) == expected


def test_a_network_keeps_its_name() -> None:
    assert fingerprint(NetworkSpec(name="lenet300-100")) == "113e12348a7c"


def test_what_only_says_how_long_to_wait_is_no_part_of_a_name() -> None:
    assert fingerprint(override(recipe("smoke"), {"irp.job.step_timeout": 5.0})) == fingerprint(recipe("smoke"))
    assert fingerprint(override(recipe("smoke"), {"irp.job.compile": True})) != fingerprint(recipe("smoke"))
