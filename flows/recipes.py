"""Recipes: functions that return one complete spec each. A variant calls its base and replaces what differs.

`RECIPES` is the one list of them; a function of one's own is named `package.module:function`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from autosparse.models.errors import unknown_name
from autosparse.models.imported import check_call, import_object, is_outside, refused, said
from autosparse.models.specs.experiment import ExperimentSpec, no_irp, no_scorer
from autosparse.models.specs.fanout import FanoutSpec, TargetSpec, ValleySpec
from autosparse.models.specs.run_specs import LEARNED, DataSpec, IrpSpec, JobSpec, NetworkSpec, ScorerSpec, ScoringSpec, TrainSpec
from autosparse.models.specs.scorer_heads import CHAMPION_HEAD

# of the recipe of methods: those that ask for a network of their own, and those that another one stands for
OWN_NETWORKS = {"fwdgrad": "local-mixer", "fw_rnn": "row-lstm"}
REPEATED = ("set", "str")  # rigl with random growth, ga_threshold without annealing
BASELINE = "narrow(cost=weights)"  # the dense baseline of methods that are cut at a density: as many weights as they have non-zeros
VALLEYS = (("dense", "grda(c=0.025,mu=0.8)"), ("dense", "scorer@0.05"))


# The scorer that held up best on new seeds (docs/results-archive.md): it learns growth, ranks inside layers and cuts by paths.
CHAMPION: dict[str, Any] = {"label": "growth", **CHAMPION_HEAD.spelled}


def demo() -> ExperimentSpec:
    """The whole pipeline on 1,797 digit images that come with it, and a network twelve times smaller at its end; minutes on two cores."""
    train = TrainSpec(epochs=5, batch_size=32, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule="onecycle", warmup=0.2)
    source = NetworkSpec(name="resnet8", width=16)
    job = JobSpec(cpus_per_worker=1)
    return ExperimentSpec(
        data=DataSpec(name="digits", augment="shift", pad=1),
        irp=IrpSpec(
            networks=(source,), seeds=(0, 1), rounds=3, final_density=0.02, criterion="magnitude", train=train, min_per_layer=2, job=job
        ),
        scoring=ScoringSpec(batches=5, batch_size=256),
        scorer=ScorerSpec(kind="mlp", epochs=8, batch_size=512, lr=0.01, holdout_layers=0.2, holdout_seeds=(1,), job=job, **CHAMPION),
        fanout=FanoutSpec(
            targets=(TargetSpec(network=source),),
            methods=(BASELINE, "snip", "synflow", "smallest_paths", "scorer"),
            densities=(0.1, 0.02),
            seeds=(10, 11),
            train=train,
            min_per_layer=1,
            job=job,
            compact=True,
        ),
    )


def compare() -> ExperimentSpec:
    """Criteria beside narrow and dense networks on the demo's digits, three seeds, no IRP and no scorer; minutes on two cores."""
    base = demo()
    methods = (BASELINE, "random", "magnitude", "snip", "grasp", "synflow")
    fanout = replace(base.fanout, methods=methods, seeds=(0, 1, 2), ticket=False)
    return replace(base, irp=no_irp(), scorer=no_scorer(), fanout=fanout)


def smoke() -> ExperimentSpec:
    """Every step once, as small as it goes: for tests."""
    base = demo()
    train = replace(base.irp.train, epochs=1, batch_size=128)
    network = NetworkSpec(name="lenet300-100")
    return replace(
        base,
        data=DataSpec(name="digits", train_limit=512, test_limit=128),
        irp=replace(base.irp, networks=(network,), seeds=(0,), rounds=2, final_density=0.1, train=train),
        scoring=ScoringSpec(batches=1, batch_size=128),
        scorer=replace(base.scorer, epochs=1, batch_size=4096, holdout_layers=0.3, holdout_seeds=()),
        fanout=replace(
            base.fanout,
            targets=(TargetSpec(network=network),),
            methods=("snip", "scorer"),
            densities=(0.1,),
            seeds=(10,),
            train=train,
            ticket=False,
            compact=False,
        ),
    )


def small_cifar() -> ExperimentSpec:
    """A scale model on real CIFAR-10: a ResNet-8 on 20,000 images, 10 magnitude rounds, six criteria on a new seed."""
    train = TrainSpec(epochs=6, batch_size=128, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule="onecycle", warmup=0.2)
    network = NetworkSpec(name="resnet8", width=32, stem_stride=2)
    return ExperimentSpec(
        data=DataSpec(
            name="parquet",
            train_limit=20_000,
            test_limit=5_000,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.247, 0.243, 0.262),
            augment="shift_flip",
            pad=2,
        ),
        irp=IrpSpec(
            networks=(network,),
            seeds=(0,),
            rounds=10,
            final_density=0.02,
            criterion="magnitude",
            train=train,
            job=JobSpec(cpus_per_worker=2),
        ),
        scoring=ScoringSpec(batches=10, batch_size=256),
        scorer=ScorerSpec(kind="mlp", epochs=10, batch_size=4096, lr=0.01, holdout_layers=0.2, job=JobSpec(cpus_per_worker=2)),
        fanout=FanoutSpec(
            targets=(TargetSpec(network=network),),
            methods=("random", "magnitude", "snip", "grasp", "synflow", "scorer", BASELINE),
            densities=(0.05, 0.02),
            seeds=(1,),
            train=train,
            job=JobSpec(cpus_per_worker=1),
        ),
    )


def small_cifar_scorer() -> ExperimentSpec:
    """The scale model's scorer, which learns how weights grow and cuts by paths, against the strongest criteria; three new seeds."""
    base = small_cifar()
    return replace(
        base,
        irp=replace(base.irp, criterion="snip"),
        scoring=replace(base.scoring, lookahead_steps=187, lookahead_lr=0.1),  # 20 % of a retraining
        scorer=replace(base.scorer, **CHAMPION),
        fanout=replace(
            base.fanout,
            methods=("erk", "snip", "synflow", "smallest_paths", "growth", "growth_paths", "scorer", "scorer_growth", BASELINE),
            densities=(0.05, 0.02, 0.01),
            seeds=(10, 11, 12),
            min_per_layer=1,
        ),
    )


def small_cifar_field() -> ExperimentSpec:
    """Every criterion on the scale model, each with a control that shuffles its layers; three new seeds, hours on two cores."""
    from autosparse.models.criteria.registry import CRITERIA  # with torch: only for who asks for this recipe

    base = small_cifar_scorer()
    methods = tuple(name for name in (*CRITERIA, *LEARNED) if name != "magnitude_iterative")  # the same masks as magnitude
    return replace(base, fanout=replace(base.fanout, methods=(*methods, BASELINE), controls=("shuffle",)))


def small_cifar_long() -> ExperimentSpec:
    """The scale model trained for 20 epochs on all 50,000 images; methods may look ahead for 12 % of that; two new seeds."""
    base = small_cifar_scorer()
    return replace(
        base,
        scoring=replace(base.scoring, lookahead_steps=936),
        fanout=replace(
            base.fanout,
            targets=(TargetSpec(network=base.fanout.targets[0].network, data=replace(base.data, train_limit=None)),),
            densities=(0.05, 0.02),
            seeds=(10, 11),
            train=replace(base.fanout.train, epochs=20),
        ),
    )


def small_cifar_frontier() -> ExperimentSpec:
    """What a mask is worth: weights, channels and both removed, beside narrower dense networks of equal cost; three new seeds.

    The IRP is one over channels, so that the scorer learns how wide each layer should be. Masks are trained without the channels that they
    cut off.
    """
    base = small_cifar_scorer()
    train = base.fanout.train
    return replace(
        base,
        irp=replace(base.irp, grain="channels", rounds=6, final_density=0.0625),
        scorer=ScorerSpec(kind="mlp", epochs=10, batch_size=4096, lr=0.01, holdout_layers=0.2, job=JobSpec(cpus_per_worker=2)),
        fanout=FanoutSpec(
            targets=base.fanout.targets,
            methods=(
                *("narrow", BASELINE, "synflow", "smallest_paths", "smallest_paths(grain=mixed)"),
                *(f"{name}(grain=channels)" for name in ("uniform", "erk", "snip", "scorer")),
                "scorer(grain=channels,widths=rates)",
            ),
            densities=(0.05, 0.02, 0.01),
            shares=(0.25, 0.125, 0.0625),
            seeds=(20, 21, 22),
            train=train,
            min_per_layer=1,
            job=JobSpec(cpus_per_worker=1),
            compact=True,
        ),
    )


def small_cifar_frontier_long() -> ExperimentSpec:
    """Channels beside narrower dense networks, trained for 20 epochs on all 50,000 images; no IRP, no scorer; three new seeds.

    At `densities` there are narrow networks alone: a narrower one than any that is compared with them.
    """
    base = small_cifar_frontier()
    fanout = replace(
        base.fanout,
        methods=("narrow", BASELINE, "uniform(grain=channels)", "erk(grain=channels)"),
        densities=(0.05,),
        shares=(0.25, 0.125),
        seeds=(40, 41, 42),
        train=replace(base.fanout.train, epochs=20),
        dense=False,
        ticket=False,
    )
    return replace(base, data=replace(base.data, train_limit=None), irp=no_irp(), scorer=no_scorer(), fanout=fanout)


def small_cifar_widths() -> ExperimentSpec:
    """Learned widths as they are, on a VGG, a deeper ResNet and grey digits: MNIST as Parquet files in `fanout.targets.2.data.path`.

    IRP and scorer are those of `small_cifar_frontier`. At `densities` there are narrow networks alone: a wider and a narrower one than any
    that is compared with them.
    """
    base = small_cifar_frontier()
    resnet8 = base.fanout.targets[0].network
    targets = (
        TargetSpec(network=NetworkSpec(name="vgg11", width=16)),
        TargetSpec(network=replace(resnet8, name="resnet20", width=16)),
        TargetSpec(network=resnet8, data=DataSpec(name="parquet", augment="shift", pad=2)),
    )
    methods = (
        *("narrow", BASELINE),
        *("uniform(grain=channels)", "erk(grain=channels)", "scorer(grain=channels,widths=rates)"),
    )
    fanout = replace(
        base.fanout, targets=targets, methods=methods, densities=(0.5, 0.0625), shares=(0.25, 0.125), seeds=(30, 31, 32), ticket=False
    )
    return replace(base, fanout=fanout)


def small_cifar_transfer() -> ExperimentSpec:
    """The scale model's scorer, not fitted again, on a VGG and on MNIST, whose Parquet files `fanout.targets.1.data.path` names."""
    base = small_cifar_scorer()
    digits = DataSpec(name="parquet", augment="shift", pad=2)
    targets = (
        TargetSpec(network=NetworkSpec(name="vgg11", width=16)),
        TargetSpec(network=base.fanout.targets[0].network, data=digits),
    )
    methods = ("snip", "synflow", "smallest_paths", "scorer", BASELINE)
    fanout = replace(base.fanout, targets=targets, methods=methods, densities=(0.05, 0.02), ticket=False)
    return replace(base, fanout=fanout)


def methods_small_cifar() -> ExperimentSpec:
    """All methods of sparse training at their usual levels beside pruning at initialization, on the scale model; about 40 minutes.

    fwdgrad trains a local mixer and fw_rnn an LSTM over rows, because they ask for such networks. Left out are set, which is rigl with
    random growth, and str, which is ga_threshold without annealing. There are six IRP rounds. At the end the minimum of the dense network
    is compared with those of gRDA and of the scorer.
    """
    from autosparse.models.methods.registry import METHODS  # with torch: only for who asks for this recipe
    from autosparse.models.networks.registry import NETWORKS

    base = small_cifar()
    family = tuple(name for name in METHODS if name not in (*REPEATED, *OWN_NETWORKS))
    own = [
        TargetSpec(network=NetworkSpec(name=network), methods=(name,))
        for name, network in OWN_NETWORKS.items()
        if name in METHODS and network in NETWORKS
    ]
    return replace(
        base,
        irp=replace(base.irp, rounds=6),
        scorer=replace(base.scorer, **CHAMPION),
        fanout=replace(
            base.fanout, targets=(*base.fanout.targets, *own), methods=("snip", "synflow", "scorer", BASELINE, *family), min_per_layer=1
        ),
        valley=ValleySpec(pairs=VALLEYS),
    )


def cifar10_resnet18() -> ExperimentSpec:
    """The published protocol: ResNet-18 on all of CIFAR-10, 160 epochs, 20 rounds to 1 %; for a GPU cluster."""
    train = TrainSpec(
        epochs=160,
        batch_size=128,
        lr=0.01,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        schedule="steps",
        milestones=(60, 120),
        gamma=0.2,
    )
    network = NetworkSpec(name="resnet18", init="kaiming_out")
    job = JobSpec(cpus_per_worker=4, gpus_per_worker=1.0)
    return ExperimentSpec(
        data=DataSpec(name="cifar10", download=True, mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.243, 0.262), augment="crop_flip", pad=4),
        irp=IrpSpec(
            networks=(network,),
            seeds=(0, 1, 2),
            rounds=20,
            final_density=0.01,
            criterion="magnitude",
            train=train,
            min_per_layer=16,
            job=job,
        ),
        scoring=ScoringSpec(batches=20, batch_size=256),
        scorer=ScorerSpec(kind="mlp", epochs=10, batch_size=16_384, lr=0.01, holdout_layers=0.2, holdout_seeds=(2,), job=job),
        fanout=FanoutSpec(
            targets=(TargetSpec(network=network), TargetSpec(network=NetworkSpec(name="vgg16"))),
            methods=("random", "erk", "magnitude", "snip", "grasp", "synflow", "scorer", BASELINE),
            densities=(0.5, 0.1, 0.05, 0.02, 0.01),
            seeds=(10, 11, 12),
            train=train,
            job=replace(job, gpus_per_worker=0.5),
        ),
    )


RECIPES: dict[str, Callable[[], ExperimentSpec]] = {
    "demo": demo,
    "compare": compare,
    "smoke": smoke,
    "small_cifar": small_cifar,
    "small_cifar_scorer": small_cifar_scorer,
    "small_cifar_field": small_cifar_field,
    "small_cifar_long": small_cifar_long,
    "small_cifar_frontier": small_cifar_frontier,
    "small_cifar_frontier_long": small_cifar_frontier_long,
    "small_cifar_widths": small_cifar_widths,
    "small_cifar_transfer": small_cifar_transfer,
    "methods_small_cifar": methods_small_cifar,
    "cifar10_resnet18": cifar10_resnet18,
}


FUNCTION = "package.module:function, without arguments, which returns an ExperimentSpec"


def recipe(name: str) -> ExperimentSpec:
    """The spec of a registered recipe or of `package.module:function`. Raises SpecError: unknown (did you mean), or no such function."""
    if name in RECIPES:
        return RECIPES[name]()
    if not is_outside(name):
        raise unknown_name("recipe", name, RECIPES)
    function = import_object("recipe", name, FUNCTION)
    check_call("recipe", name, function, FUNCTION)
    try:
        spec = function()
    except Exception as error:
        raise refused("recipe", name, FUNCTION, f"it raises {said(error)}") from error
    if not isinstance(spec, ExperimentSpec):
        raise refused("recipe", name, FUNCTION, f"it returns a {type(spec).__name__}")
    return spec
