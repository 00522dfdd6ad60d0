"""One IRP round inside a Ray Train job: rewind, train under the mask, score, cut (Frankle and Carbin 2019, arXiv 1803.03635).

The first cut follows the first training. Rewinding loads the whole state: weights, BatchNorm affine and statistics, biases;
the order of the data is a function of seed and epoch, so it is rewound as well. Momentum starts at zero.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from autosparse.models import seeding
from autosparse.models.channels.examples import example_of
from autosparse.models.channels.grain import Grained
from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.errors import CollapseError, not_allowed
from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import global_topk
from autosparse.models.masks.mask import Mask, Scores
from autosparse.models.networks.calls import fitted
from autosparse.models.schedules import density_after, density_before
from autosparse.models.specs.fields import Spec, check_fields
from autosparse.models.specs.grain import Grain
from autosparse.models.specs.run_specs import DataSpec, Density, IrpSpec, Natural, NetworkSpec, Seed
from autosparse.models.training.objective import told
from autosparse.models.training.trainer import Trainer
from autosparse.storage import paths
from autosparse.storage.mask_files import dump_mask
from autosparse.tasks.worker.job import Job, body
from autosparse.tasks.worker.problem import Problem, initial_network, open_problem
from autosparse.tasks.worker.scoring_batches import scoring_batches
from autosparse.tasks.worker.train_network import (
    dump_state,
    initial_digest,
    load_state,
    metrics_in,
    read_mask,
    read_state,
    train_network,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundInputs(Spec):
    """Round `index` of a source network and seed. `source` is the source's folder in the store, `step` and `step_before` are those of this
    round and the one before it (None for round 0); tickets are cut at `ticket_densities`."""

    irp: IrpSpec
    network: NetworkSpec
    data: DataSpec
    seed: Seed
    index: Natural
    source: str
    step: str
    step_before: str | None
    ticket_densities: tuple[Density, ...]

    def __post_init__(self) -> None:
        check_fields(self)
        if (self.step_before is None) != (self.index == 0):
            raise not_allowed("step_before", self.step_before, f"the step of the round before round {self.index}, none for round 0")


@body(RoundInputs)
def run_round(job: Job, inputs: RoundInputs) -> dict[str, Any]:
    """Train the round, then cut; returns the round's report.

    Writes initial and rewind state (round 0), mask, trained weights and tickets of the densities this cut passes.
    """
    irp, spec, seed, index = inputs.irp, inputs.network, inputs.seed, inputs.index
    problem = open_problem(inputs.data, job.cache)
    network = initial_network(spec, problem, seed)
    after_step, start, initial = None, 0, {}
    if index == 0:
        initial = {"initial_digest": initial_digest(network)}
        after_step = _keep_states(job, network, inputs.source, irp.rewind_step)
    else:
        load_state(network, read_state(job, paths.rewind_state(inputs.source)))
        start = irp.rewind_step
    before = _mask_before(job, inputs, network)
    history = train_network(
        job,
        network,
        problem,
        training=irp.train,
        mask=before if index else None,
        seed=seed,
        start_step=start,
        after_step=after_step,
    )
    report = {
        "round": index,
        "seed": seed,
        "source": spec.label,
        "density": masks.density(before),
        **told(problem.objective(irp.train).metric, metrics_in(history[-1])),
        "loss": history[-1]["loss"],
        "epochs": history,
        "data_digest": problem.digest,
        "scheduled_density": density_before(index, irp.rounds, irp.final_density),
        **initial,
    }
    return report | (_cut(job, inputs, network, problem, before) if job.rank.index == 0 else {})


def _cut(job: Job, inputs: RoundInputs, network: nn.Module, problem: Problem, before: Mask) -> dict[str, Any]:
    irp, index, step = inputs.irp, inputs.index, inputs.step
    scores = _scores(job, inputs, network, problem)
    after = density_after(index, irp.rounds, irp.final_density)
    cut = _cutter(inputs, network, problem, scores, before)
    mask = cut(after)
    if collapsed := masks.collapsed_layers(mask):
        raise CollapseError(
            f"irp.final_density: round {index} leaves no weight in {', '.join(collapsed)}; allowed: irp.min_per_layer >= 1 keeps some",
            {"kept": {name: int(keep.count_nonzero()) for name, keep in mask.items()}},
        )
    job.store.write(paths.weights(step), dump_state(network))
    for density in inputs.ticket_densities:
        if after <= density < density_before(index, irp.rounds, irp.final_density):
            job.store.write(paths.ticket(inputs.source, density), dump_mask(cut(density)))
    job.store.write(paths.mask(step), dump_mask(mask))
    return {
        "kept": masks.kept(mask),
        "weights": masks.total(mask),
        "density_after": masks.density(mask),
        "layer_densities": masks.layer_densities(mask),
        "mask_checksum": masks.checksum(mask),
    }


def _cutter(inputs: RoundInputs, network: nn.Module, problem: Problem, scores: Scores, before: Mask) -> Callable[[float], Mask]:
    """From a density, or a share of the multiply-adds where channels leave, to the mask."""
    allocate = partial(global_topk, floor=inputs.irp.min_per_layer)
    if inputs.irp.grain == "weights":
        return lambda density: allocate(scores, density, alive=before)
    example = fitted(network, example_of(problem.shape))
    grained = Grained(network, example, Grain(grain="channels"), inputs.network.prune_head)
    return lambda share: {name: keep.cpu() for name, keep in grained.channels(scores, share, allocate=allocate, alive=before).items()}


def _scores(job: Job, inputs: RoundInputs, network: nn.Module, problem: Problem) -> Scores:
    irp = inputs.irp
    batches = scoring_batches(job, problem, inputs.seed, training=irp.train)
    stream = seeding.generator(inputs.seed, "irp-criterion")
    scores = CRITERIA[irp.criterion].score(network, batches, stream, head=inputs.network.prune_head, density=irp.final_density)
    return {name: score.cpu() for name, score in scores.items()}


def _mask_before(job: Job, inputs: RoundInputs, network: nn.Module) -> Mask:
    if inputs.step_before is None:
        return masks.full(masks.prunable(network, head=inputs.network.prune_head))
    return read_mask(job, paths.mask(inputs.step_before))


def _keep_states(job: Job, network: nn.Module, source: str, rewind_step: int) -> Any:
    def keep(key: str, state: nn.Module) -> None:
        if job.rank.index == 0:
            job.store.write(key, dump_state(state))

    def after_step(trainer: Trainer) -> None:
        if trainer.step == rewind_step:
            keep(paths.rewind_state(source), trainer.network)

    keep(paths.initial_state(source), network)
    if rewind_step == 0:
        keep(paths.rewind_state(source), network)
        return None
    return after_step
