"""The task of one arm: a mask at initialization or a method of training, one Ray Train job, a test accuracy."""

from dataclasses import dataclass
from typing import Any

from prefect import task

from autosparse.models.arms.controls import arm_name
from autosparse.models.errors import DivergedError
from autosparse.models.methods.names import trains
from autosparse.models.methods.registry import parse
from autosparse.models.specs.fields import to_plain
from autosparse.models.specs.protocol import Protocol
from autosparse.models.specs.run_specs import DENSE, LOOKING_AHEAD, DataSpec, NetworkSpec
from autosparse.tasks.engine.run import Run
from autosparse.tasks.engine.step import TASK, Report, Step, run_step
from autosparse.tasks.worker import retrain_arm as worker

OK, COLLAPSED, DIVERGED = "ok", "collapsed", "diverged"
COUNTS = ("kept_density", "density_all", "density_own", "expected_density", "effective_density")
COSTS = (
    *("inference_macs", "training_macs", "training_seconds", "inference_seconds", "images_per_second"),
    *("peak_memory_bytes", "lr_over_batch"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """What one arm trains: `mask` and `state` are keys in the store, None = all weights, the state of step 0.

    `method` is a criterion, whose mask is `mask`, or a level of a method that trains otherwise; `density` None = it has no
    density target. `control` spoils one thing about the arm of `method`.
    """

    target: str
    dataset: str
    method: str
    density: float | None
    seed: int
    network: NetworkSpec
    data: DataSpec
    control: str | None = None
    mask: str | None = None
    state: str | None = None
    start_step: int = 0
    collapsed: tuple[str, ...] = ()
    kept_density: float | None = 1.0
    effective_density: float | None = None

    @property
    def title(self) -> str:
        """`resnet8-w32-s2 snip+shuffle .05 seed 1`."""
        density = "" if self.method == DENSE or self.density is None else f" {self.density:g}"
        return f"{self.target} {arm_name(self.method, self.control)}{density} seed {self.seed}"

    @property
    def identity(self) -> dict[str, Any]:
        """The fields of its report that say which arm it is."""
        same = {name: getattr(self, name) for name in ("target", "dataset", "density", "seed")}
        return {**same, "method": arm_name(self.method, self.control)}

    @property
    def trained_by(self) -> dict[str, Any] | None:
        """The method that replaces something of the training, as jobs and reports have it: name, all settings, density."""
        if not trains(self.method):
            return None
        name, (settings,) = parse(self.method)
        return {"name": name, "settings": to_plain(settings), "density": self.density}

    @property
    def facts(self) -> dict[str, Any]:
        """What its report says of the mask where nothing was trained."""
        return {"kept_density": self.kept_density, "effective_density": self.effective_density, "accuracy": None}


@task(**TASK)
def retrain_arm(run: Run, arm: Arm, title: str) -> Report:
    """Train one arm. A mask with an empty layer is reported as collapsed and not trained; a NaN loss as diverged, with its step.

    A method that has cut every path by itself is collapsed as well: what a dead network answers is no result.
    """
    fanout = run.spec.fanout
    key = run.paths.arm(arm.target, arm.seed, arm.method, arm.density, arm.control)
    protocol = Protocol(data=arm.data, train=fanout.train, scoring=run.spec.scoring, looks_ahead=arm.method in LOOKING_AHEAD)
    known = {**arm.identity, "protocol": protocol.fields()} | ({"settings": arm.trained_by["settings"]} if arm.trained_by else {})

    def work(step: Step) -> Report:
        if arm.collapsed:
            return {**known, "status": COLLAPSED, "collapsed": list(arm.collapsed), **arm.facts}
        inputs = worker.ArmInputs(
            network=arm.network,
            data=arm.data,
            train=fanout.train,
            seed=arm.seed,
            control=arm.control,
            mask=arm.mask,
            method=worker.Level(name=arm.method, density=arm.density) if trains(arm.method) else None,
            state=arm.state,
            start_step=arm.start_step,
            step=key,
        )
        try:
            report = step.train(worker.retrain_arm, run.config(inputs), fanout.job)
        except DivergedError as error:
            return {**known, "status": DIVERGED, "reason": str(error), **arm.facts}
        if report["collapsed"]:
            return {**known, **report, "status": COLLAPSED, "accuracy": None}
        figures = {name: report[name] for name in (*COUNTS, *COSTS) if report[name] is not None}
        run.tracker.metrics(step.mlflow_run, {"final_accuracy": report["accuracy"], **figures})
        if arm.mask:
            run.tracker.file(step.mlflow_run, "mask.safetensors", run.store.read(arm.mask))
        return {**known, "status": OK, **report}

    return run_step(run, key, title, work, parameters=arm.identity)
