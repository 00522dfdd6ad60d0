"""Which arms a fan-out has."""

from autosparse.models.methods.names import family, trains
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fanout import FanoutSpec, TargetSpec
from autosparse.models.specs.run_specs import NetworkSpec


def methods_of(fanout: FanoutSpec, target: TargetSpec) -> tuple[str, ...]:
    """The methods of one target: its own where it names some, else those of the fan-out."""
    return target.methods or fanout.methods


def densities_of(fanout: FanoutSpec, method: str) -> tuple[float | None, ...]:
    """One arm each: the densities of the fan-out, or one arm without a density target for a method that lands where it lands."""
    from autosparse.models.methods.registry import find_method

    return fanout.densities if not trains(method) or find_method(family(method)).by_density else (None,)


def controls_of(fanout: FanoutSpec, method: str) -> tuple[str, ...]:
    """Controls spoil masks at initialization; other methods have none."""
    return () if trains(method) else fanout.controls


def ticket_targets(spec: ExperimentSpec, network: NetworkSpec) -> tuple[TargetSpec, ...]:
    """Where the tickets of a source network are trained, so that they are the upper end of what is compared there.

    Every target of that network on images of the run's data set, whatever part of them it takes; without one, the run's own data.
    """
    source = (spec.data.name, spec.data.path)
    same = [target for target in spec.fanout.targets if target.network == network]
    found = tuple(target for target in same if (spec.data_of(target).name, spec.data_of(target).path) == source)
    return found or (TargetSpec(network=network),)


def ticket_densities(spec: ExperimentSpec) -> tuple[float, ...]:
    """The densities that a whole IRP passes; none where no tickets are asked for."""
    return tuple(density for density in spec.fanout.densities if spec.irp.final_density <= density < 1) if spec.fanout.ticket else ()


def count_arms(spec: ExperimentSpec, *, controls: bool) -> int:
    """Arms of all targets, methods, densities and seeds with dense and tickets, and with their controls if asked for."""
    fanout = spec.fanout
    places = sum(len(ticket_targets(spec, network)) for network in spec.irp.networks)
    arms = [
        len(densities_of(fanout, method)) * (1 + controls * len(controls_of(fanout, method)))
        for target in fanout.targets
        for method in methods_of(fanout, target)
    ]
    return len(fanout.seeds) * (sum(arms) + len(fanout.targets) * fanout.dense) + places * len(ticket_densities(spec)) * len(spec.irp.seeds)
