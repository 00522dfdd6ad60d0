"""The spec of a plan: what suits a network and images of which little is known."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from autosparse.flows.init.plans import BATCHES, METHODS, Plan
from autosparse.flows.recipes import CHAMPION
from autosparse.models.methods.names import is_learned
from autosparse.models.networks.calls import Shape, is_shape
from autosparse.models.specs.experiment import ExperimentSpec, no_irp, no_scorer
from autosparse.models.specs.fanout import FanoutSpec, TargetSpec
from autosparse.models.specs.run_specs import DataSpec, IrpSpec, JobSpec, NetworkSpec, ScorerSpec, ScoringSpec, TrainSpec

FIRST_SEED = 10  # of the fan-out: far from those of the IRP
FEWEST_SEEDS = 2  # of the fan-out: one tells no method from another
MANY, LARGE = 4096, 64  # images, pixels of a side: from here on batches are large, and small again
PADS = 8, 4  # a shift is an eighth of a side, at most four pixels
FEW_WEIGHTS = 500_000


def batch_size_of(examples: int, shape: Shape) -> int:
    """Examples of a step: enough steps in an epoch of a small set, and little memory for large images or whatever a task has."""
    usual = 128 if examples >= MANY and is_shape(shape) and max(shape[1:]) <= LARGE else 32
    return max(1, min(usual, examples // BATCHES))


def with_augmentation(data: DataSpec, image_shape: Shape) -> DataSpec:
    """Images shifted a little, which changes no label; mirrored ones could be others. A task of one's own as it is."""
    if not is_shape(image_shape):
        return data
    pad = min(min(image_shape[1:]) // PADS[0], PADS[1])
    return replace(data, augment="shift", pad=pad) if pad and data.augment == "none" else data


def learning_rate_of(network: nn.Module) -> float:
    """That of SGD with momentum: networks without BatchNorm do not bear as much."""
    return 0.1 if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()) else 0.02


def draft(
    plan: Plan,
    networks: tuple[NetworkSpec, ...],
    data: DataSpec,
    *,
    batch_size: int,
    lr: float,
    images: int,
    weights: int,
    gpus: int = 0,
    compare: bool = False,
) -> ExperimentSpec:
    """The whole spec of a plan; `images` and `weights` are the numbers of training images and of the source's weights.

    To `compare` criteria takes no IRP, no scorer and no ticket.
    """
    train = TrainSpec(
        epochs=plan.epochs,
        batch_size=batch_size,
        lr=lr,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        schedule="onecycle",
        warmup=0.2,
    )
    job = JobSpec(gpus_per_worker=1.0 if gpus else 0.0)
    seeds = tuple(range(plan.seeds))
    methods = [method for method in METHODS if not (compare and is_learned(method))]
    whole = ExperimentSpec(
        data=replace(data, train_limit=plan.train_limit, test_limit=plan.test_limit),
        irp=IrpSpec(
            networks=networks[:1],
            seeds=seeds,
            rounds=plan.rounds,
            final_density=min(plan.densities),
            criterion="magnitude",
            train=train,
            min_per_layer=1,
            job=job,
        ),
        scoring=ScoringSpec(batches=max(1, min(10, (plan.train_limit or images) // batch_size)), batch_size=batch_size),
        scorer=ScorerSpec(
            kind="mlp",
            epochs=8,
            batch_size=512 if weights < FEW_WEIGHTS else 4096,
            lr=0.01,
            holdout_layers=0.2,
            holdout_seeds=seeds[1:][-1:],
            job=JobSpec(),
            **CHAMPION,
        ),
        fanout=FanoutSpec(
            targets=tuple(TargetSpec(network=network) for network in networks),
            methods=tuple(methods[: plan.methods]),
            densities=plan.densities,
            seeds=tuple(FIRST_SEED + seed for seed in range(max(FEWEST_SEEDS, plan.seeds))),
            train=train,
            ticket=not compare,
            min_per_layer=1,
            job=job,
        ),
    )
    return replace(whole, irp=no_irp(), scorer=no_scorer()) if compare else whole


def compares(spec: ExperimentSpec, changes: Mapping[str, Any]) -> bool:
    """Whether what a draft became by the changes asks for no scorer and no ticket, and nobody spoke of an IRP."""
    spoken = any(path.startswith(("irp", "scorer")) for path in changes) or changes.get("fanout.ticket")
    return not spoken and not any(map(is_learned, spec.fanout.all_methods))
