"""Every step of a run, in the order of the flow: what `autosparse plan` counts, and a test compares with what a run leaves."""

from collections.abc import Iterator
from dataclasses import dataclass

from autosparse.models.arms.arm import Arm
from autosparse.models.arms.plan import planned, scorings, sources, target_of
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.run_specs import TICKET, DataSpec, JobSpec, NetworkSpec, TrainSpec
from autosparse.storage.paths import RunPaths
from autosparse.tasks.checks.preflight import data_specs
from autosparse.tasks.results.arm_reports import step_of
from autosparse.tasks.results.comparisons import comparisons

DATA, ROUND, FEATURES, FIT, REGISTRATION = "data", "round", "features", "scorer", "registration"
SCORING, ARM, VALLEY, SUMMARY = "scoring", "arm", "valley", "summary"
KINDS = (DATA, ROUND, FEATURES, FIT, REGISTRATION, SCORING, ARM, VALLEY, SUMMARY)


@dataclass(frozen=True, kw_only=True)
class PlannedStep:
    """A step: where its report will lie, what it occupies, and, as far as it has any, what it works on.

    `train` is that of a training inside it, which begins at `start`; `method` that of a scoring or an arm; `seed` that of a source.
    """

    kind: str
    key: str
    title: str
    job: JobSpec
    network: NetworkSpec | None = None
    data: DataSpec | None = None
    train: TrainSpec | None = None
    start: int = 0
    method: str | None = None
    seed: int | None = None
    density: float | None = None


def steps_of(spec: ExperimentSpec, run: RunPaths) -> list[PlannedStep]:
    """The steps of a whole run. Raises SpecError for pairs of arms that there are not."""
    fanout = spec.fanout
    found = [
        PlannedStep(kind=DATA, key=run.data(field), title=f"data {data.title}", job=spec.irp.job, data=data)
        for field, data in data_specs(spec)
    ]
    found += _learning(spec, run)
    for label, seed, method in scorings(spec):
        target = target_of(spec, label)
        title, key = f"score {label} {method} seed {seed}", run.scores(label, seed, method)
        where = {"network": target.network, "data": spec.data_of(target)}
        found.append(PlannedStep(kind=SCORING, key=key, title=title, job=fanout.job, train=fanout.train, method=method, **where))
    found += [_arm(spec, run, arm) for arm in planned(spec)]
    for pair in comparisons(spec):
        target = target_of(spec, pair.first.target)
        where = {"network": target.network, "data": spec.data_of(target)}
        found.append(PlannedStep(kind=VALLEY, key=pair.key(run), title=pair.title, job=fanout.job, train=fanout.train, **where))
    return [*found, PlannedStep(kind=SUMMARY, key=run.summary, title="summary", job=JobSpec())]


def _learning(spec: ExperimentSpec, run: RunPaths) -> Iterator[PlannedStep]:
    """From the sources to the registered scorer; nothing without sources."""
    irp = spec.irp
    for network, seed in sources(spec):
        for index in range(irp.rounds):
            yield PlannedStep(
                kind=ROUND,
                key=run.round(network.label, seed, index),
                title=f"{network.label} seed {seed} round {index}",
                job=irp.job,
                network=network,
                data=spec.data,
                train=irp.train,
                start=irp.rewind_step if index else 0,
                seed=seed,
            )
    if found := len(sources(spec)):
        yield PlannedStep(kind=FEATURES, key=run.features, title=f"features of {found} sources", job=irp.job, data=spec.data)
        yield PlannedStep(kind=FIT, key=run.scorer, title=f"fit scorer {spec.scorer.kind}", job=spec.scorer.job)
        yield PlannedStep(kind=REGISTRATION, key=run.registration, title="register scorer", job=JobSpec())


def _arm(spec: ExperimentSpec, run: RunPaths, arm: Arm) -> PlannedStep:
    target = target_of(spec, arm.target)
    return PlannedStep(
        kind=ARM,
        key=step_of(run, arm),
        title=arm.title,
        job=spec.fanout.job,
        network=target.network,
        data=spec.data_of(target),
        train=spec.fanout.train,
        start=spec.irp.rewind_step if arm.method == TICKET else 0,
        method=arm.method,
        density=arm.density,
    )
