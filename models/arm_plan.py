"""Which arms a fan-out has."""

from models.experiment import ExperimentSpec
from models.fanout_specs import FanoutSpec, TargetSpec
from models.method_names import family, trains


def methods_of(fanout: FanoutSpec, target: TargetSpec) -> tuple[str, ...]:
    """The methods of one target: its own where it names some, else those of the fan-out."""
    return target.methods or fanout.methods


def densities_of(fanout: FanoutSpec, method: str) -> tuple[float | None, ...]:
    """One arm each: the densities of the fan-out, or one arm without a density target for a method that lands where it lands."""
    from models.methods.registry import METHODS

    return fanout.densities if not trains(method) or METHODS[family(method)].by_density else (None,)


def controls_of(fanout: FanoutSpec, method: str) -> tuple[str, ...]:
    """Controls spoil masks at initialization; other methods have none."""
    return () if trains(method) else fanout.controls


def count_arms(spec: ExperimentSpec, *, controls: bool) -> int:
    """Arms of all targets, methods, densities and seeds with dense and tickets, and with their controls if asked for."""
    fanout, irp = spec.fanout, spec.irp
    tickets = sum(irp.final_density <= density < 1 for density in fanout.densities) * len(irp.networks) * len(irp.seeds)
    arms = [
        len(densities_of(fanout, method)) * (1 + controls * len(controls_of(fanout, method)))
        for target in fanout.targets
        for method in methods_of(fanout, target)
    ]
    return len(fanout.seeds) * (sum(arms) + len(fanout.targets) * fanout.dense) + tickets * fanout.ticket
