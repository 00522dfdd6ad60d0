"""Where tickets are trained: the plan, the names and the arms that a fan-out starts agree on it."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from autosparse.flows.recipes import small_cifar_long, smoke
from autosparse.flows.target_fanout import _tickets
from autosparse.models.arms.names import planned
from autosparse.models.arms.plan import count_arms, ticket_densities, ticket_targets
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fanout import TargetSpec
from autosparse.models.specs.run_specs import TICKET, DataSpec, NetworkSpec
from autosparse.storage.paths import RunPaths
from autosparse.tasks.compare_arms import target_of


def spec(*targets: TargetSpec, **fanout: Any) -> ExperimentSpec:
    base = smoke()
    return replace(base, fanout=replace(base.fanout, targets=targets, ticket=True, **fanout))


def places(found: ExperimentSpec) -> list[tuple[str, int | None]]:
    """Label and number of training images of the places of the only source's tickets, the same in plan, names and arms."""
    (network,) = found.irp.networks
    targets = ticket_targets(found, network)
    arms = _tickets(SimpleNamespace(spec=found, paths=RunPaths("first")))  # type: ignore[arg-type]
    keys = [(arm.target, arm.density, arm.seed) for arm in arms]
    assert keys == [(name.target, name.density, name.seed) for name in planned(found) if name.method == TICKET]
    assert len(keys) == len(targets) * len(ticket_densities(found)) * len(found.irp.seeds)
    assert count_arms(found, controls=True) == len(planned(found))
    for arm in arms:
        assert arm.data == found.data_of(target_of(found, arm.target))
    return list(dict.fromkeys((arm.target, arm.data.train_limit) for arm in arms))


def test_a_ticket_is_trained_on_the_images_that_it_is_compared_on() -> None:
    source = smoke()
    (network,) = source.irp.networks
    more = TargetSpec(network=network, data=replace(source.data, train_limit=7))
    assert places(spec(more)) == [(more.label, 7)]
    assert places(spec(TargetSpec(network=network))) == [(network.label, source.data.train_limit)]
    assert places(spec(TargetSpec(network=network), more)) == [(network.label, source.data.train_limit), (more.label, 7)]


def test_without_a_target_of_its_network_and_data_set_a_ticket_is_trained_on_the_data_of_the_run() -> None:
    source = smoke()
    (network,) = source.irp.networks
    own = [(network.label, source.data.train_limit)]
    elsewhere = replace(source.data, path="/elsewhere")
    assert places(spec(TargetSpec(network=network, data=DataSpec(name="parquet", path="/digits")))) == own
    assert places(spec(TargetSpec(network=network, data=elsewhere))) == own
    assert places(spec(TargetSpec(network=NetworkSpec(name="resnet8", width=4)))) == own


def test_no_ticket_where_none_is_asked_for_or_no_round_passes() -> None:
    (network,) = smoke().irp.networks
    found = spec(TargetSpec(network=network), densities=(0.5, smoke().irp.final_density / 2))
    assert ticket_densities(found) == (0.5,)
    assert ticket_densities(replace(found, fanout=replace(found.fanout, ticket=False))) == ()


def test_the_long_recipe_trains_its_tickets_on_all_images() -> None:
    found = small_cifar_long()
    assert places(found) == [(found.fanout.targets[0].label, None)]
