"""Which arms are compared, where that lies, and whether both are there; without Prefect, for the command line to ask first."""

from dataclasses import dataclass, replace

from autosparse.models.arms.arm import Arm
from autosparse.models.arms.names import find_pairs, spec_pairs
from autosparse.models.errors import DataError
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fanout import ValleySpec
from autosparse.models.specs.fields import fingerprint
from autosparse.storage import reports
from autosparse.storage.paths import RunPaths, arm_key
from autosparse.storage.store import Store
from autosparse.tasks.results.arm_reports import step_of

OK = "ok"


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two arms of one target and how they are compared; `valley` has neither pairs nor seed."""

    first: Arm
    second: Arm
    valley: ValleySpec

    @property
    def title(self) -> str:
        """`valley of resnet8-w32-s2: dense seed 10 and scorer@0.02 seed 10`."""
        return f"valley of {self.first.target}: {self.first.short} seed {self.first.seed} and {self.second.short} seed {self.second.seed}"

    def key(self, run: RunPaths) -> str:
        """Where it lies in the store."""
        first, second = (arm_key(arm.method, arm.control, arm.density, arm.seed) for arm in (self.first, self.second))
        return run.comparison(self.first.target, first, second, fingerprint(self.valley))


def comparisons(spec: ExperimentSpec) -> list[Comparison]:
    """What `valley.pairs` of the spec asks for. Raises SpecError."""
    valley = replace(spec.valley, pairs=(), seed=None)
    return [Comparison(first=first, second=second, valley=valley) for first, second in spec_pairs(spec)]


def comparison_of(
    spec: ExperimentSpec, store: Store, run: RunPaths, first: str, second: str, *, seed: int | None, valley: ValleySpec
) -> list[Comparison]:
    """Two arms of a run that is there, on every target that has both.

    Raises SpecError for a name that is no arm, DataError for an arm that is not finished, that failed or has lost its weights.
    """
    found = find_pairs(spec, first, second, seed=seed, fields=("--first", "--second"))
    for arm in (arm for pair in found for arm in pair):
        if why := incomparable(store, run, arm):
            raise DataError(f"arm: {arm.text} of {run.name} cannot be compared: {why}")
    return [Comparison(first=one, second=other, valley=replace(valley, pairs=(), seed=None)) for one, other in found]


def missing(store: Store, run: RunPaths, arm: Arm) -> str:
    """Why an arm has no trained weights, empty where it has."""
    report = reports.find(store, step_of(run, arm))
    if report is None:
        return "it is not finished"
    status = report.get("status", OK)
    return "" if status == OK else f"it {status}"


def compacted_by(store: Store, run: RunPaths, arm: Arm) -> str:
    """The key of the mask that made the smaller network whose weights are stored; empty where they are those of the whole network."""
    found = (reports.find(store, step_of(run, arm)) or {}).get("compacted") or {}
    return "" if "reason" in found else found.get("mask", "")


def incomparable(store: Store, run: RunPaths, arm: Arm) -> str:
    """Why an arm has no minimum to compare with another arm's, empty where it has."""
    small = "it was trained as a smaller network (fanout.compact)" if compacted_by(store, run, arm) else ""
    small = "it is a narrower network" if arm.narrow else small
    return missing(store, run, arm) or small
