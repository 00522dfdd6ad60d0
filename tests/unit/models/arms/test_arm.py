"""One arm: its names, and how a name is taken apart again."""

import pytest

from autosparse.models.arms.arm import Arm, arm_name, split_name


@pytest.mark.parametrize(
    ("method", "control", "name"),
    [
        ("snip", None, "snip"),
        ("snip", "shuffle", "snip+shuffle"),
        ("scorer_growth", "random_labels", "scorer_growth+random_labels"),
        ("grda(c=0.02,mu=0.8)", None, "grda(c=0.02,mu=0.8)"),
    ],
)
def test_names_come_apart_as_they_were_put_together(method: str, control: str | None, name: str) -> None:
    assert arm_name(method, control) == name
    assert split_name(name) == (method, control)


def test_the_names_of_an_arm() -> None:
    arm = Arm(target="net", method="snip", control="shuffle", density=0.05, seed=3)
    assert (arm.name, arm.short) == ("snip+shuffle", "snip+shuffle@0.05")
    assert (arm.text, arm.title) == ("net/snip+shuffle@0.05#3", "net snip+shuffle 0.05 seed 3")
    dense, landing = Arm(target="net", method="dense", density=1.0, seed=3), Arm(target="net", method="grda", seed=3)
    assert (dense.text, dense.title, landing.text, landing.title) == ("net/dense#3", "net dense seed 3", "net/grda#3", "net grda seed 3")


def test_masks_of_scores_are_those_of_criteria_and_scorers() -> None:
    def scored(method: str) -> bool:
        return Arm(target="net", method=method, seed=3).scored

    assert [scored(method) for method in ("snip", "scorer", "scorer_growth")] == [True] * 3
    assert [scored(method) for method in ("dense", "ticket", "grda", "grda(c=0.02,mu=0.8)", "sdp")] == [False] * 5
