"""Subflow: every target by every method and density. Criteria prune at initialization and retrain, other methods train at once."""

from typing import Any

from prefect import flow
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed

from autosparse.models.arms.arm import Arm
from autosparse.models.arms.plan import planned, scorings, target_of
from autosparse.models.errors import DataError
from autosparse.models.methods.names import trains
from autosparse.models.specs.run_specs import TICKET
from autosparse.storage import paths
from autosparse.tasks.engine.progress_artifact import ProgressArtifact
from autosparse.tasks.engine.run import Run
from autosparse.tasks.engine.step import Report
from autosparse.tasks.retrain_arm import OK, Origin, retrain_arm
from autosparse.tasks.score_target import score_target


@flow(name="target-fanout", flow_run_name="fan-out {title}", validate_parameters=False)
def target_fanout(run: Run, title: str) -> Any:
    """The reports of all arms, dense and ticket included; as many at once as the cluster has room for."""
    with run.back_to_back(run.spec.fanout.job):
        reports = _all(run)
    failed = sum(report["status"] != OK for report in reports)
    return Completed(message=f"{len(reports)} arms" + (f", {failed} of them failed" if failed else ""), data=reports)


def _all(run: Run) -> list[Report]:
    arms = planned(run.spec)
    scored = [arm for arm in arms if arm.scored]
    trained = [arm for arm in arms if trains(arm.method)]
    ends = [arm for arm in arms if not arm.scored and not trains(arm.method)]  # of the scale: dense and tickets
    futures = [retrain_arm.submit(run, arm, origin_of(run, arm), arm.title) for arm in ends]
    scores = {
        (target, seed, method): score_target.submit(run, target_of(run.spec, target), seed, method, f"score {target} {method} seed {seed}")
        for target, seed, method in scorings(run.spec)
    }
    futures += [retrain_arm.submit(run, arm, origin_of(run, arm), arm.title) for arm in trained]
    with run.interruptible():
        for arm in scored:
            origin = cut_of(run, arm, scores[arm.target, arm.seed, arm.method].result())
            futures.append(retrain_arm.submit(run, arm, origin, arm.title))
        return _collect(run, futures)


def _collect(run: Run, arms: list[PrefectFuture]) -> list[Report]:
    bar = ProgressArtifact(f"{run.name}-fanout", "arms retrained")
    for number, future in enumerate(arms):
        future.wait()
        bar.update((number + 1) / len(arms))
    wait(arms)
    return [future.result() for future in arms]


def origin_of(run: Run, arm: Arm) -> Origin:
    """What an arm that needs no scores is trained from.

    The ticket keeps its own initialization: the state its IRP rewound to. What a method keeps is not known before its training.
    """
    if arm.method != TICKET:
        return Origin(kept_density=None if trains(arm.method) or arm.narrow else 1.0)
    assert arm.density is not None, "a ticket has a density"
    source = run.paths.source(target_of(run.spec, arm.target).network.label, arm.seed)
    kept = arm.density if run.spec.irp.grain == "weights" else None
    mask, state = paths.ticket(source, arm.density), paths.rewind_state(source)
    return Origin(mask=mask, state=state, start_step=run.spec.irp.rewind_step, kept_density=kept)


def cut_of(run: Run, arm: Arm, scored: Report) -> Origin:
    """What an arm is trained from whose mask was cut from scores; `scored` is the report of its scoring.

    Raises DataError where the scoring is one of another spec, in a run whose record of its spec was removed.
    """
    cuts = scored.get("controls", {}).get(arm.control, {}) if arm.control else scored["cuts"]
    cut = cuts.get(f"{arm.density:g}")
    if not cut:
        place = run.store.uri(run.paths.scores(arm.target, arm.seed, arm.method))
        wanted = f"density {arm.density:g}{f' of control {arm.control}' if arm.control else ''}"
        raise DataError(f"{place}: a scoring without {wanted} is not allowed; allowed: one of this spec, or none")
    return Origin(
        mask=cut["mask"],
        collapsed=tuple(cut["collapsed"] or _dead(cut)),
        kept_density=cut["density"],
        effective_density=cut.get("effective_density"),  # older reports have none
        initial=scored.get("initial_digest"),  # nor this
    )


def _dead(cut: Report) -> list[str]:
    """The layers that lead nowhere, where no path at all is left from the images to the classes."""
    return cut["cut_off"] if cut.get("effective_density") == 0 else []
