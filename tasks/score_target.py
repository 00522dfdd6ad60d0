"""The task that scores one target by one method and cuts it at every density."""

from prefect import task

from autosparse.models.arms.plan import densities_of
from autosparse.models.methods.names import is_learned
from autosparse.models.specs.fanout import TargetSpec
from autosparse.tasks.engine.run import Run, log
from autosparse.tasks.engine.step import TASK, Report, Step, run_step
from autosparse.tasks.worker import score_target as worker


@task(**TASK)
def score_target(run: Run, target: TargetSpec, seed: int, method: str, title: str) -> Report:
    """Scores once, masks at every density and control; the report names each mask, what it keeps and which layers it collapses."""
    fanout = run.spec.fanout
    key = run.paths.scores(target.label, seed, method)

    def work(step: Step) -> Report:
        inputs = worker.ScoringInputs(
            target=target,
            data=run.spec.data_of(target),
            seed=seed,
            method=method,
            densities=tuple(density for density in densities_of(fanout, method) if density),
            min_per_layer=fanout.min_per_layer,
            controls=fanout.controls,
            repair=fanout.repair,
            train=fanout.train,
            scorer=run.paths.scorer if is_learned(method) else None,
            step=key,
        )
        report = step.train_in(run.series, worker.score_target, run.config(inputs), target.label, alone=True)
        if warning := (report.get("drift") or {}).get("warning"):
            log().warning("%s: %s", title, warning)
        return report

    return run_step(run, key, title, work, parameters={"target": target.label, "seed": seed, "method": method})
