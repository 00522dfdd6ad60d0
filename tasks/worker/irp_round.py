"""One IRP round inside a Ray Train job: rewind, train under the mask, score, cut (Frankle and Carbin 2019, arXiv 1803.03635).

The first cut follows the first training. Rewinding loads the whole state: weights, BatchNorm affine and statistics, biases;
the order of the data is a function of seed and epoch, so it is rewound as well. Momentum starts at zero.
"""

from typing import Any

from torch import nn

from autosparse.models import seeding
from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.errors import CollapseError
from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import global_topk
from autosparse.models.masks.mask import Mask, Scores
from autosparse.models.schedules import density_after, density_before
from autosparse.models.specs.run_specs import DataSpec, IrpSpec, NetworkSpec
from autosparse.models.training.trainer import Trainer
from autosparse.storage import paths
from autosparse.storage.image_datasets import ImageArrays
from autosparse.storage.mask_files import dump_mask
from autosparse.tasks.worker.job import Job, body, images
from autosparse.tasks.worker.scoring_batches import scoring_batches
from autosparse.tasks.worker.train_network import dump_state, initial_network, load_state, read_mask, read_state, train_network


@body
def run_round(job: Job) -> dict[str, Any]:
    """Train round `round` of a source network and seed, then cut; returns the round's report.

    Writes initial and rewind state (round 0), mask, trained weights and tickets of the densities this cut passes.
    """
    irp, spec, data = job.spec("irp", IrpSpec), job.spec("network", NetworkSpec), job.spec("data", DataSpec)
    seed, index, source = job.config["seed"], job.config["round"], job.config["source"]
    arrays = images(data)
    network = initial_network(spec, arrays, seed)
    after_step, start = None, 0
    if index == 0:
        after_step = _keep_states(job, network, source, irp.rewind_step)
    else:
        load_state(network, read_state(job, paths.rewind_state(source)))
        start = irp.rewind_step
    before = _mask_before(job, network, spec)
    history = train_network(job, network, arrays, mask=before if index else None, seed=seed, start_step=start, after_step=after_step)
    report = {
        "round": index,
        "seed": seed,
        "source": spec.label,
        "density": masks.density(before),
        "accuracy": history[-1]["accuracy"],
        "loss": history[-1]["loss"],
        "epochs": history,
        "data_digest": arrays.digest,
        "scheduled_density": density_before(index, irp.rounds, irp.final_density),
    }
    return report | (_cut(job, network, arrays, before, irp, spec) if job.rank.index == 0 else {})


def _cut(job: Job, network: nn.Module, arrays: ImageArrays, before: Mask, irp: IrpSpec, spec: NetworkSpec) -> dict[str, Any]:
    index, source, step = job.config["round"], job.config["source"], job.config["step"]
    scores = _scores(job, network, arrays, irp, spec)
    after = density_after(index, irp.rounds, irp.final_density)
    mask = global_topk(scores, after, floor=irp.min_per_layer, alive=before)
    if collapsed := masks.collapsed_layers(mask):
        raise CollapseError(
            f"irp.final_density: round {index} leaves no weight in {', '.join(collapsed)}; allowed: irp.min_per_layer >= 1 keeps some",
            {"kept": {name: int(keep.count_nonzero()) for name, keep in mask.items()}},
        )
    job.store.write(paths.weights(step), dump_state(network))
    for density in job.config["ticket_densities"]:
        if after <= density < density_before(index, irp.rounds, irp.final_density):
            ticket = global_topk(scores, density, floor=irp.min_per_layer, alive=before)
            job.store.write(paths.ticket(source, density), dump_mask(ticket))
    job.store.write(paths.mask(step), dump_mask(mask))
    return {
        "kept": masks.kept(mask),
        "weights": masks.total(mask),
        "density_after": masks.density(mask),
        "layer_densities": masks.layer_densities(mask),
        "mask_checksum": masks.checksum(mask),
    }


def _scores(job: Job, network: nn.Module, arrays: ImageArrays, irp: IrpSpec, spec: NetworkSpec) -> Scores:
    batches = scoring_batches(job, arrays, job.config["seed"])
    stream = seeding.generator(job.config["seed"], "irp-criterion")
    scores = CRITERIA[irp.criterion].score(network, batches, stream, head=spec.prune_head, density=irp.final_density)
    return {name: score.cpu() for name, score in scores.items()}


def _mask_before(job: Job, network: nn.Module, spec: NetworkSpec) -> Mask:
    if job.config["round"] == 0:
        return masks.full(masks.prunable(network, head=spec.prune_head))
    return read_mask(job, paths.mask(job.config["step_before"]))


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
