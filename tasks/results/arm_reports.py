"""Reports of the fan-out: where an arm's lies, and how its name is taken apart when it is read and put together when it is stored.

On disk `method` is one text, `snip+shuffle`. Everything in tasks/results and tasks/report works with `method` and `control` apart.
"""

from typing import Any

from autosparse.models.arms.arm import Arm, arm_name, split_name
from autosparse.storage.paths import RunPaths

Report = dict[str, Any]


def step_of(run: RunPaths, arm: Arm) -> str:
    """The step that trains an arm."""
    return run.arm(arm.target, arm.seed, arm.method, arm.density, arm.control)


def opened(report: Report) -> Report:
    """A stored report of an arm or a scoring with `method` and `control` (None = none) apart."""
    method, control = split_name(report["method"])
    return {**report, "method": method, "control": control}


def closed(found: Report) -> Report:
    """What has `method` and `control` apart as it is stored, in the same order."""
    return {name: name_of(found) if name == "method" else value for name, value in found.items() if name != "control"}


def name_of(found: Report) -> str:
    """The name of an opened report or a row in tables: `snip+shuffle`."""
    return arm_name(found["method"], found["control"])


def arm_of(report: Report) -> Arm:
    """The arm that an opened report is about."""
    return Arm(**{name: report[name] for name in ("target", "method", "control", "density", "seed")})
