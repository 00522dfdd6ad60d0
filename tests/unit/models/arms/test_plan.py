"""Which arms a run has, listed by hand, and where its tickets are trained."""

from dataclasses import replace
from typing import Any

from autosparse.flows.recipes import small_cifar_long, smoke
from autosparse.models.arms.plan import planned, target_of, ticket_densities, ticket_targets
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fanout import TargetSpec
from autosparse.models.specs.run_specs import TICKET, DataSpec, NetworkSpec


def spec(*targets: TargetSpec, **fanout: Any) -> ExperimentSpec:
    base = smoke()
    return replace(base, fanout=replace(base.fanout, targets=targets, ticket=True, **fanout))


def test_the_arms_of_a_small_spec_by_hand_in_the_order_in_which_they_start() -> None:
    """Dense, tickets, the method without a density target, then masks by target, seed, method, density, control.

    The IRP goes down to .1: there is no ticket at .05, and none of the target that is no source network.
    """
    base = smoke()
    own = TargetSpec(network=NetworkSpec(name="resnet8", width=4), methods=("random",))
    found = spec(
        *base.fanout.targets,
        own,
        methods=("snip", "grda(c=0.02,mu=0.8)"),
        densities=(0.1, 0.05),
        seeds=(10, 11),
        controls=("shuffle", "reinit"),
        dense=True,
    )
    found = replace(found, irp=replace(found.irp, seeds=(0, 1), final_density=0.1))
    lenet, resnet = "lenet300-100", "resnet8-w4"
    assert [arm.text for arm in planned(found)] == [
        f"{lenet}/dense#10",
        f"{lenet}/dense#11",
        f"{resnet}/dense#10",
        f"{resnet}/dense#11",
        f"{lenet}/ticket@0.1#0",
        f"{lenet}/ticket@0.1#1",
        f"{lenet}/grda(c=0.02,mu=0.8)#10",
        f"{lenet}/grda(c=0.02,mu=0.8)#11",
        *(f"{lenet}/snip{control}@{density}#10" for density in ("0.1", "0.05") for control in ("", "+shuffle", "+reinit")),
        *(f"{lenet}/snip{control}@{density}#11" for density in ("0.1", "0.05") for control in ("", "+shuffle", "+reinit")),
        *(f"{resnet}/random{control}@{density}#10" for density in ("0.1", "0.05") for control in ("", "+shuffle", "+reinit")),
        *(f"{resnet}/random{control}@{density}#11" for density in ("0.1", "0.05") for control in ("", "+shuffle", "+reinit")),
    ]
    bare = replace(found, fanout=replace(found.fanout, dense=False, ticket=False, controls=(), seeds=(10,)))
    assert [arm.text for arm in planned(bare)] == [
        f"{lenet}/grda(c=0.02,mu=0.8)#10",
        f"{lenet}/snip@0.1#10",
        f"{lenet}/snip@0.05#10",
        f"{resnet}/random@0.1#10",
        f"{resnet}/random@0.05#10",
    ]


def test_methods_of_training_have_no_controls_with_a_density_target_or_without() -> None:
    found = spec(*smoke().fanout.targets, methods=("rigl", "grda()"), densities=(0.5,), seeds=(10,), controls=("shuffle",), dense=False)
    arms = [(arm.method, arm.control, arm.density) for arm in planned(found) if arm.method != TICKET]
    assert arms == [("rigl", None, 0.5), ("grda()", None, None)]


def places(found: ExperimentSpec) -> list[tuple[str, int | None]]:
    """Label and number of training images of the places of the only source's tickets, the same in plan and arms."""
    (network,) = found.irp.networks
    targets = ticket_targets(found, network)
    arms = [arm for arm in planned(found) if arm.method == TICKET]
    assert len(arms) == len(targets) * len(ticket_densities(found)) * len(found.irp.seeds)
    assert [target_of(found, label) for label in dict.fromkeys(arm.target for arm in arms)] == list(targets)
    return list(dict.fromkeys((arm.target, found.data_of(target_of(found, arm.target)).train_limit) for arm in arms))


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


def test_narrow_networks_and_grains_are_cut_at_the_shares_of_their_cost() -> None:
    fanout = replace(
        smoke().fanout,
        methods=("narrow", "narrow(cost=weights)", "snip(grain=channels)", "snip(grain=mixed)", "snip"),
        densities=(0.1,),
        shares=(0.5, 0.25),
        controls=("shuffle",),
        dense=False,
    )
    arms = [(arm.method, arm.density, arm.control) for arm in planned(replace(smoke(), fanout=fanout))]
    for method in ("narrow", "snip(grain=channels)"):
        assert [density for name, density, control in arms if name == method and control is None] == [0.5, 0.25]
    for method in ("narrow(cost=weights)", "snip(grain=mixed)", "snip"):
        assert [density for name, density, control in arms if name == method and control is None] == [0.1]
    assert {name for name, _, control in arms if control} == {"snip(grain=channels)", "snip(grain=mixed)", "snip"}


def test_shares_that_are_not_said_are_the_densities() -> None:
    fanout = replace(smoke().fanout, methods=("narrow",), densities=(0.1,), dense=False)
    assert [arm.density for arm in planned(replace(smoke(), fanout=fanout)) if arm.narrow] == [0.1]


def test_tickets_of_channels_are_cut_at_the_shares() -> None:
    spec = smoke()
    irp = replace(spec.irp, grain="channels", final_density=0.25)
    fanout = replace(spec.fanout, ticket=True, shares=(0.5, 0.25, 0.1))
    assert ticket_densities(replace(spec, irp=irp, fanout=fanout)) == (0.5, 0.25)
