"""The task of one arm: a mask at initialization or a method of training, one Ray Train job, a test metric."""

from dataclasses import dataclass
from typing import Any

from prefect import task

from autosparse.models.arms.arm import Arm
from autosparse.models.arms.plan import target_of
from autosparse.models.errors import DivergedError
from autosparse.models.methods.names import looks_ahead, trains
from autosparse.models.methods.registry import parse
from autosparse.models.specs.fields import to_plain
from autosparse.models.specs.grain import Narrowed, narrow_of
from autosparse.models.specs.protocol import Protocol
from autosparse.tasks.engine.run import Run
from autosparse.tasks.engine.step import TASK, Report, Step, run_step
from autosparse.tasks.results.arm_reports import step_of
from autosparse.tasks.results.costs import deployed_costs
from autosparse.tasks.results.measured import final
from autosparse.tasks.worker import retrain_arm as worker

OK, COLLAPSED, DIVERGED = "ok", "collapsed", "diverged"
COUNTS = ("kept_density", "density_all", "density_own", "expected_density", "effective_density")
COSTS = (
    *("inference_macs", "training_macs", "training_seconds", "inference_seconds", "images_per_second"),
    *("peak_memory_bytes", "lr_over_batch"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """What an arm is trained from: `mask` and `state` are keys in the store, None = all weights, the state of step 0.

    `collapsed` names the layers for which it is not trained at all. Densities are those of the mask, None where it is not known yet.
    `initial` is the digest of the weights that the mask was made for, None where it is not known.
    """

    mask: str | None = None
    state: str | None = None
    start_step: int = 0
    collapsed: tuple[str, ...] = ()
    kept_density: float | None = 1.0
    effective_density: float | None = None
    initial: str | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What the report says of the mask where nothing was trained."""
        return {"kept_density": self.kept_density, "effective_density": self.effective_density, "accuracy": None}


@task(**TASK)
def retrain_arm(run: Run, arm: Arm, origin: Origin, title: str) -> Report:
    """Train one arm. A mask with an empty layer is reported as collapsed and not trained; a NaN loss as diverged, with its step.

    A method that has cut every path by itself is collapsed as well: what a dead network answers is no result.
    """
    fanout, target = run.spec.fanout, target_of(run.spec, arm.target)
    key, data, settings = step_of(run.paths, arm), run.spec.data_of(target), settings_of(arm)
    protocol = Protocol(
        data=data, train=fanout.train, scoring=run.spec.scoring, looks_ahead=looks_ahead(arm.method), compact=fanout.compact
    )
    identity = {"target": arm.target, "dataset": data.title, "method": arm.name, "density": arm.density, "seed": arm.seed}
    known = {**identity, "protocol": protocol.fields()} | ({"settings": settings} if settings is not None else {})

    def work(step: Step) -> Report:
        if origin.collapsed:
            return {**known, "status": COLLAPSED, "collapsed": list(origin.collapsed), **origin.facts}
        inputs = worker.ArmInputs(
            network=target.network,
            data=data,
            train=fanout.train,
            seed=arm.seed,
            control=arm.control,
            mask=origin.mask,
            method=worker.Level(name=arm.method, density=arm.density) if trains(arm.method) else None,
            state=origin.state,
            start_step=origin.start_step,
            step=key,
            compact=fanout.compact,
            narrow=_narrowed(arm),
            initial=origin.initial,
        )
        try:
            report = step.train_in(run.series, worker.retrain_arm, run.config(inputs), arm.target)
        except DivergedError as error:
            return {**known, "status": DIVERGED, "reason": str(error), **origin.facts}
        if report["collapsed"]:
            return {**known, **report, "status": COLLAPSED, **({"metrics": {}} if "metrics" in report else {"accuracy": None})}
        figures = {name: report[name] for name in (*COUNTS, *COSTS) if report[name] is not None}
        run.tracker.metrics(step.mlflow_run, final(report) | figures | deployed_costs(report))
        if origin.mask:
            run.tracker.file(step.mlflow_run, "mask.safetensors", run.store.read(origin.mask))
        return {**known, "status": OK, **report}

    return run_step(run, key, title, work, parameters=identity)


def _narrowed(arm: Arm) -> Narrowed | None:
    settings = narrow_of(arm.method)
    return Narrowed(cost=settings.cost, share=arm.density) if settings and arm.density else None


def settings_of(arm: Arm) -> dict[str, Any] | None:
    """All settings of the method that replaces something of the training; None for a mask."""
    if not trains(arm.method):
        return None
    _, (settings,) = parse(arm.method)
    return to_plain(settings)
