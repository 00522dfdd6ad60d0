"""Subflow: every target by every method and density. Criteria prune at initialization and retrain, other methods train at once."""

import itertools

from prefect import flow
from prefect.futures import PrefectFuture, wait

from autosparse.models.arms.plan import controls_of, densities_of, methods_of, ticket_densities, ticket_targets
from autosparse.models.errors import DataError
from autosparse.models.methods.names import trains
from autosparse.models.specs.fanout import TargetSpec
from autosparse.models.specs.run_specs import DENSE, TICKET
from autosparse.storage import paths
from autosparse.tasks.engine.progress_artifact import ProgressArtifact
from autosparse.tasks.engine.run import Run
from autosparse.tasks.engine.step import Report
from autosparse.tasks.retrain_arm import Arm, retrain_arm
from autosparse.tasks.score_target import score_target


@flow(name="target-fanout", flow_run_name="fan-out {title}", validate_parameters=False)
def target_fanout(run: Run, title: str) -> list[Report]:
    """The reports of all arms, dense and ticket included; as many at once as the cluster has room for."""
    fanout = run.spec.fanout
    arms = [retrain_arm.submit(run, arm, arm.title) for arm in (*_dense(run), *_tickets(run))]
    cells = [(target, seed, method) for target in fanout.targets for seed in fanout.seeds for method in methods_of(fanout, target)]
    scores = {
        (target.label, seed, method): score_target.submit(run, target, seed, method, f"score {target.label} {method} seed {seed}")
        for target, seed, method in cells
        if not trains(method)
    }
    trained = [arm for target, seed, method in cells if trains(method) for arm in _trained(run, target, seed, method)]
    arms += [retrain_arm.submit(run, arm, arm.title) for arm in trained]
    with run.interruptible():
        for target, seed, method in cells:
            if not trains(method):
                masked = _masked(run, target, seed, method, scores[target.label, seed, method].result())
                arms += [retrain_arm.submit(run, arm, arm.title) for arm in masked]
        return _collect(run, arms)


def _collect(run: Run, arms: list[PrefectFuture]) -> list[Report]:
    bar = ProgressArtifact(f"{run.name}-fanout", "arms retrained")
    for number, future in enumerate(arms):
        future.wait()
        bar.update((number + 1) / len(arms))
    wait(arms)
    return [future.result() for future in arms]


def _dense(run: Run) -> list[Arm]:
    fanout = run.spec.fanout
    if not fanout.dense:
        return []
    return [_arm(run, target, seed, DENSE, 1.0) for target in fanout.targets for seed in fanout.seeds]


def _tickets(run: Run) -> list[Arm]:
    """The ticket keeps its own initialization: the state its IRP rewound to."""
    spec = run.spec
    tickets = []
    for network, seed in itertools.product(spec.irp.networks, spec.irp.seeds):
        source = run.paths.source(network.label, seed)
        start = {"state": paths.rewind_state(source), "start_step": spec.irp.rewind_step}
        for target, density in itertools.product(ticket_targets(spec, network), ticket_densities(spec)):
            mask = paths.ticket(source, density)
            tickets.append(_arm(run, target, seed, TICKET, density, kept_density=density, mask=mask, **start))
    return tickets


def _trained(run: Run, target: TargetSpec, seed: int, method: str) -> list[Arm]:
    """The arms of a method that changes the training: what they keep is not known before."""
    densities = densities_of(run.spec.fanout, method)
    return [_arm(run, target, seed, method, density, kept_density=None) for density in densities]


def _masked(run: Run, target: TargetSpec, seed: int, method: str, scored: Report) -> list[Arm]:
    """The arms of one method at every density, each followed by its controls.

    Raises DataError where the scoring is one of another spec, in a run whose record of its spec was removed.
    """
    arms = []
    for density in run.spec.fanout.densities:
        for control in (None, *controls_of(run.spec.fanout, method)):
            cuts = scored.get("controls", {}).get(control, {}) if control else scored["cuts"]
            if not (cut := cuts.get(f"{density:g}")):
                place = run.store.uri(run.paths.scores(target.label, seed, method))
                wanted = f"density {density:g}{f' of control {control}' if control else ''}"
                raise DataError(f"{place}: a scoring without {wanted} is not allowed; allowed: one of this spec, or none")
            arms.append(_arm(run, target, seed, method, density, control=control, **_facts(cut)))
    return arms


def _facts(cut: Report) -> dict[str, object]:
    return {
        "mask": cut["mask"],
        "collapsed": tuple(cut["collapsed"] or _dead(cut)),
        "kept_density": cut["density"],
        "effective_density": cut.get("effective_density"),  # older reports have none
    }


def _dead(cut: Report) -> list[str]:
    """The layers that lead nowhere, where no path at all is left from the images to the classes."""
    return cut["cut_off"] if cut.get("effective_density") == 0 else []


def _arm(run: Run, target: TargetSpec, seed: int, method: str, density: float | None, **extra: object) -> Arm:
    data = run.spec.data_of(target)
    identity = {"target": target.label, "dataset": data.title, "method": method, "density": density, "seed": seed}
    return Arm(**identity, network=target.network, data=data, **extra)  # type: ignore[arg-type]
