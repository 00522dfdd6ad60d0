"""The task of one arm: a mask at initialization, one Ray Train job, a test accuracy."""

from dataclasses import dataclass

from prefect import task

from models.errors import DivergedError
from models.spec_fields import to_plain
from models.specs import DENSE, DataSpec, NetworkSpec
from tasks.run import Run
from tasks.steps import TASK, Report, Step, run_step
from tasks.worker import retrain_arm as worker

OK, COLLAPSED, DIVERGED = "ok", "collapsed", "diverged"


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """What one arm trains: `mask` and `state` are keys in the store, None = all weights, the state of step 0."""

    target: str
    dataset: str
    method: str
    density: float
    seed: int
    network: NetworkSpec
    data: DataSpec
    mask: str | None = None
    state: str | None = None
    start_step: int = 0
    collapsed: tuple[str, ...] = ()
    kept_density: float = 1.0

    @property
    def title(self) -> str:
        """`resnet8-w32-s2 snip .05 seed 1`."""
        density = "" if self.method == DENSE else f" {self.density:g}"
        return f"{self.target} {self.method}{density} seed {self.seed}"


@task(**TASK, tags=["arm"])
def retrain_arm(run: Run, arm: Arm, title: str) -> Report:
    """Train one arm. A mask with an empty layer is reported as collapsed and not trained; a NaN loss as diverged."""
    fanout = run.spec.fanout
    key = run.paths.arm(arm.target, arm.seed, arm.method, arm.density)
    identity = {name: getattr(arm, name) for name in ("target", "dataset", "method", "density", "seed")}

    def work(step: Step) -> Report:
        if arm.collapsed:
            return {**identity, "status": COLLAPSED, "collapsed": list(arm.collapsed), "kept_density": arm.kept_density, "accuracy": None}
        config = run.config(
            network=to_plain(arm.network),
            data=to_plain(arm.data),
            train=to_plain(fanout.train),
            seed=arm.seed,
            mask=arm.mask,
            state=arm.state,
            start_step=arm.start_step,
            step=key,
        )
        try:
            report = step.train(worker.retrain_arm, config, fanout.job)
        except DivergedError as error:
            return {**identity, "status": DIVERGED, "reason": str(error), "kept_density": arm.kept_density, "accuracy": None}
        run.tracker.metrics(step.mlflow_run, {"final_accuracy": report["accuracy"], "kept_density": report["kept_density"]})
        if arm.mask:
            run.tracker.file(step.mlflow_run, "mask.safetensors", run.store.read(arm.mask))
        return {**identity, "status": OK, **report}

    return run_step(run, key, title, work, parameters=identity)
