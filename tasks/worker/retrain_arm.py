"""One arm of the fan-out inside a Ray Train job: the initial weights, under a mask or by a method, trained, tested.

What is tested is what would be used: without gates and thresholds, rewritten where a method rewrites.
"""

import resource
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from autosparse.models import seeding
from autosparse.models.arms.controls import CONTROLS, Control
from autosparse.models.channels.narrow import narrow_network
from autosparse.models.errors import DataError, not_allowed, unknown_name
from autosparse.models.masks import gates
from autosparse.models.masks import mask as masks
from autosparse.models.masks.mask import Mask
from autosparse.models.methods import outcome
from autosparse.models.methods.contract import Parts, Setup
from autosparse.models.methods.registry import find_method, parse
from autosparse.models.networks.flops import forward_macs
from autosparse.models.specs.fields import Spec, check_fields
from autosparse.models.specs.grain import Narrowed
from autosparse.models.specs.run_specs import DataSpec, Density, Natural, NetworkSpec, Seed, TrainSpec
from autosparse.models.training.loop import evaluate
from autosparse.models.training.objective import told
from autosparse.models.training.trainer import Trainer
from autosparse.storage import paths
from autosparse.tasks.worker.compacted import compacted
from autosparse.tasks.worker.deployed import deployed
from autosparse.tasks.worker.job import Job, body
from autosparse.tasks.worker.problem import Problem, initial_network, open_problem
from autosparse.tasks.worker.train_network import (
    dump_state,
    initial_digest,
    load_state,
    open_trainer,
    place,
    read_mask,
    read_state,
    train,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Level(Spec):
    """A method that trains otherwise, as the fan-out names it, `grda(c=0.05,mu=0.8)`, and its density where it has a target."""

    name: str
    density: Density | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmInputs(Spec):
    """What is trained, from the initial weights of `seed` or as `control` has them, or from `state` at `start_step`, under `mask` or by
    `method`; neither is the dense end of the scale. `mask` and `state` are keys in the store, `step` is the arm's. With `compact` a network
    under a mask is trained without the channels that the mask cut off. `narrow` is the dense network of that share.
    `initial` is the digest of the initial weights that the mask was made for, None where it is not known."""

    network: NetworkSpec
    data: DataSpec
    train: TrainSpec
    seed: Seed
    control: str | None
    mask: str | None
    method: Level | None
    state: str | None
    start_step: Natural
    step: str
    compact: bool
    narrow: Narrowed | None
    initial: str | None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.control and self.control not in CONTROLS:
            raise unknown_name("control", self.control, CONTROLS)
        if self.control and CONTROLS[self.control].weights and not self.mask:
            raise not_allowed("mask", self.mask, f"the key of a mask for the control {self.control!r}")
        if self.method and self.mask:
            raise not_allowed("mask", self.mask, f"none for {self.method.name}, which decides by itself")


@body(ArmInputs)
def retrain_arm(job: Job, inputs: ArmInputs) -> dict[str, Any]:
    """Train the arm's network and measure what came of it."""
    spec, problem = inputs.network, open_problem(inputs.data, job.cache)
    whole = starting_network(job, inputs, problem)
    initial = initial_digest(whole)
    target = initial_network(spec, problem, inputs.seed) if inputs.narrow else whole  # whose weights densities are shares of
    mask = _mask(job, inputs, whole)
    made = compacted(whole, mask, problem.shape) if inputs.compact and inputs.mask and mask else None
    network, held = (made.network, made.mask) if made else (whole, mask)
    place(job, network)
    macs = forward_macs(network, problem.shape)
    parts = method_parts(inputs, network, problem)
    own = outcome.own_tensors(network, parts)
    trainer = open_trainer(
        job,
        network,
        problem,
        training=inputs.train,
        mask=held,
        seed=inputs.seed,
        start_step=inputs.start_step,
        parts=parts,
    )

    def cost(trainer: Trainer, steps: int) -> dict[str, float]:
        return {"training_macs": steps * trainer.spec.batch_size * outcome.step_macs(macs, trainer.mask)}

    history = train(job, trainer, figures=cost)
    plain = outcome.bake(network, parts)
    if job.rank.index == 0:
        job.store.write(paths.weights(inputs.step), dump_state(plain))
    found = _evaluated(trainer, plain, target, problem, spec, own, inputs.seed, measures=job.rank.index == 0)
    kept = {name: keep.cpu() for name, keep in (mask or outcome.nonzero(plain, head=spec.prune_head)).items()}
    effective = gates.effective_density(whole, kept, problem.shape)
    weights = sum(weight.numel() for weight in masks.prunable(target, head=spec.prune_head).values())
    return {
        **found,
        "collapsed": (masks.collapsed_layers(kept) or list(kept)) if effective == 0 else [],  # without a path, a network is none
        "loss": history[-1]["loss"],
        "epochs": history,
        "kept": masks.kept(kept),
        "weights": weights,
        "kept_density": masks.kept(mask) / weights if mask else found["kept_density"],
        "effective_density": effective * masks.total(kept) / weights,
        "data_digest": problem.digest,
        "initial_digest": initial,
        "training_macs": sum(record["training_macs"] for record in history),
        "training_seconds": sum(record["seconds"] for record in history),
        "peak_memory_bytes": peak_memory(job.device),
        "lr_over_batch": trainer.spec.lr / trainer.spec.batch_size,
        "replaces": outcome.replaced(parts),
        "facts": history[-1]["facts"],
        "expected_density": history[-1]["facts"].get("expected_density"),
        **({"compacted": {**made.facts, "mask": inputs.mask}} if made else {}),
    }


def method_parts(inputs: ArmInputs, network: nn.Module, problem: Problem) -> Parts:
    """What the arm's method puts into the training, attached to the network; nothing where the arm is a mask at step 0."""
    if inputs.method is None:
        return Parts()
    name, (settings,) = parse(inputs.method.name)
    setup = Setup(
        network=network,
        train=inputs.train,
        density=inputs.method.density,
        head=inputs.network.prune_head,
        image_shape=problem.shape,
        steps_per_epoch=problem.sizes["train"] // inputs.train.batch_size,
        seed=inputs.seed,
        schedule=problem.objective(inputs.train).schedule,
    )
    return find_method(name).parts(setup, settings)


def _mask(job: Job, inputs: ArmInputs, network: nn.Module) -> Mask | None:
    """The arm's mask, all weights for the dense arm, None where a method decides."""
    if inputs.method:
        return None
    return read_mask(job, inputs.mask) if inputs.mask else masks.full(masks.prunable(network, head=inputs.network.prune_head))


def _evaluated(
    trainer: Trainer,
    plain: nn.Module,
    whole: nn.Module,
    problem: Problem,
    spec: NetworkSpec,
    own: set[str],
    seed: int,
    *,
    measures: bool,
) -> dict[str, Any]:
    """Metrics, densities and costs of the network in use, which is `plain` or what the method makes of it; `whole` before compaction.

    What it costs where it is deployed is there where it `measures`.
    """
    parts = trainer.parts
    dense = plain if whole is trainer.network else whole  # without what the method attached
    used = parts.rewrite(plain, seeding.generator(seed, "method", "rewrite")) if parts.rewrite else plain
    trainer.network = trainer.forward = used
    start = time.monotonic()
    metrics = evaluate(trainer)
    seconds = time.monotonic() - start
    metered = parts.cost(used) if parts.cost else None  # of the test images: before anything else goes through the network
    return {
        **told(trainer.objective.metric, metrics),
        **outcome.densities(used, whole, head=spec.prune_head, own=own),
        "inference_macs": outcome.inference_macs(used, forward_macs(used, problem.shape), metered),
        "inference_seconds": seconds,
        "images_per_second": len(trainer.test) / seconds,
        **({"deployed": deployed(used, problem.shape, metered, dense)} if measures else {}),
    }


def peak_memory(device: torch.device) -> int:
    """Bytes: of tensors on the GPU, or of this whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def starting_network(job: Job, inputs: ArmInputs, problem: Problem) -> nn.Module:
    """The network as the arm begins: from `state`, else drawn from the arm's seed, or as its control has it.

    Whatever else is random in the arm belongs to its own seed.
    """
    seed, control = inputs.seed, CONTROLS[inputs.control] if inputs.control else Control()
    if inputs.narrow:
        return narrow_network(inputs.network, inputs.narrow.share, inputs.narrow.cost, seed=seed, **problem.fit)
    network = initial_network(inputs.network, problem, control.init_seed(seed) if control.init_seed else seed)
    if inputs.initial and not control.init_seed:
        _check_same_weights(network, inputs)
    if inputs.state:
        load_state(network, read_state(job, inputs.state))
    if control.weights and inputs.mask:
        control.weights(network, read_mask(job, inputs.mask))
    return network


def _check_same_weights(network: nn.Module, inputs: ArmInputs) -> None:
    if (found := initial_digest(network)) != inputs.initial:
        raise DataError(
            f"network: {inputs.network.name} with seed {inputs.seed} has the initial weights {found}, its mask is for {inputs.initial}; "
            "allowed: a factory that gives the same weights every time (torch, numpy.random and random are seeded), on machines of one kind"
        )
