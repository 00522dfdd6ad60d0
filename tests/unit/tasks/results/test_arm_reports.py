"""Stored reports are opened and closed without a loss, and say which arm they are about."""

from autosparse.models.arms.arm import Arm
from autosparse.storage.paths import RunPaths
from autosparse.tasks.results.arm_reports import arm_of, closed, name_of, opened, step_of

STORED = {"target": "net", "dataset": "digits", "method": "snip+shuffle", "density": 0.1, "seed": 3, "accuracy": 0.5}


def test_method_and_control_are_apart_inside_and_one_text_outside() -> None:
    found = opened(STORED)
    assert found == {**STORED, "method": "snip", "control": "shuffle"}
    assert name_of(found) == "snip+shuffle"
    assert closed(found) == STORED and list(closed(found)) == list(STORED)
    plain = {**STORED, "method": "snip"}
    assert opened(plain) == {**plain, "control": None} and closed(opened(plain)) == plain


def test_the_arm_of_a_report_and_its_step() -> None:
    arm = Arm(target="net", method="snip", control="shuffle", density=0.1, seed=3)
    assert arm_of(opened(STORED)) == arm
    assert step_of(RunPaths("first"), arm) == "runs/first/fanout/net/seed3/snip/density-0.1-shuffle"
