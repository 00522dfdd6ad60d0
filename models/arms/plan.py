"""Which arms a run has. The fan-out starts them, and progress, disk check, leak check, comparisons and report count on them."""

from autosparse.models.arms.arm import Arm
from autosparse.models.methods.names import family, trains
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fanout import FanoutSpec, TargetSpec
from autosparse.models.specs.grain import NARROW, WEIGHTS, cost_of
from autosparse.models.specs.run_specs import DENSE, TICKET, DataSpec, NetworkSpec


def planned(spec: ExperimentSpec) -> list[Arm]:
    """Every arm of the spec once, in the order in which a run starts them.

    Dense, tickets, methods that train otherwise, then masks cut from scores, each followed by its controls.
    """
    fanout = spec.fanout
    dense = [Arm(target=target.label, method=DENSE, density=1.0, seed=seed) for target in fanout.targets for seed in fanout.seeds]
    tickets = [
        Arm(target=target.label, method=TICKET, density=density, seed=seed)
        for network in spec.irp.networks
        for seed in spec.irp.seeds
        for target in ticket_targets(spec, network)
        for density in ticket_densities(spec)
    ]
    methods = [
        Arm(target=target.label, method=method, control=control, density=density, seed=seed)
        for target in fanout.targets
        for seed in fanout.seeds
        for method in methods_of(fanout, target)
        for density in densities_of(fanout, method)
        for control in (None, *controls_of(fanout, method))
    ]
    return [*(dense if fanout.dense else []), *tickets, *sorted(methods, key=lambda arm: arm.scored)]  # the sort is stable


def sources(spec: ExperimentSpec) -> list[tuple[NetworkSpec, int]]:
    """Every source network and seed: one IRP each, and one part of the feature data set."""
    return [(network, seed) for network in spec.irp.networks for seed in spec.irp.seeds]


def scorings(spec: ExperimentSpec) -> list[tuple[str, int, str]]:
    """(target, seed, method) of every scoring: each is cut at all densities."""
    return list(dict.fromkeys((arm.target, arm.seed, arm.method) for arm in planned(spec) if arm.scored))


def target_of(spec: ExperimentSpec, label: str) -> TargetSpec:
    """The target of that label, be it one of the fan-out or one that has tickets alone."""
    tickets = (target for network in spec.irp.networks for target in ticket_targets(spec, network))
    return next(target for target in (*spec.fanout.targets, *tickets) if target.label == label)


def methods_of(fanout: FanoutSpec, target: TargetSpec) -> tuple[str, ...]:
    """The methods of one target: its own where it names some, else those of the fan-out."""
    return target.methods or fanout.methods


def densities_of(fanout: FanoutSpec, method: str) -> tuple[float | None, ...]:
    """One arm each: the densities of the fan-out, its shares of another cost, or one arm without a target where a method has none."""
    from autosparse.models.methods.registry import find_method

    if trains(method):
        return fanout.densities if find_method(family(method)).by_density else (None,)
    return fanout.densities if cost_of(method) == WEIGHTS else fanout.shares or fanout.densities


def controls_of(fanout: FanoutSpec, method: str) -> tuple[str, ...]:
    """Controls spoil masks at initialization; other methods and narrow networks have none."""
    return () if trains(method) or family(method) == NARROW else fanout.controls


def ticket_targets(spec: ExperimentSpec, network: NetworkSpec) -> tuple[TargetSpec, ...]:
    """Where the tickets of a source network are trained, so that they are the upper end of what is compared there.

    Every target of that network on images of the run's data set, whatever part of them it takes; without one, the run's own data.
    """
    source = _source(spec.data)
    same = [target for target in spec.fanout.targets if target.network == network]
    found = tuple(target for target in same if _source(spec.data_of(target)) == source)
    return found or (TargetSpec(network=network),)


def ticket_densities(spec: ExperimentSpec) -> tuple[float, ...]:
    """The densities that a whole IRP passes, of one over channels the shares; none where no tickets are asked for."""
    fanout = spec.fanout
    asked = fanout.densities if spec.irp.grain == "weights" else fanout.shares or fanout.densities
    return tuple(density for density in asked if spec.irp.final_density <= density < 1) if fanout.ticket else ()


def _source(data: DataSpec) -> tuple[object, ...]:
    return data.name, data.path, data.image, data.label
