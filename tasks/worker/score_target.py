"""Pruning at initialization on Ray: score a target once, cut at every density."""

from typing import Any

from models import masks, seeding
from models.criteria.registry import CRITERIA, Criterion
from models.scorer_criterion import as_criterion
from models.specs import SCORER, DataSpec, TargetSpec
from storage.checkpoints import dump_tensors
from storage.mask_files import dump_mask
from tasks.worker.job import Job, body, images
from tasks.worker.scorer_files import load_scorer
from tasks.worker.scoring_batches import scoring_batches
from tasks.worker.train_network import initial_network


@body
def score_target(job: Job) -> dict[str, Any]:
    """Score every prunable weight of one target and seed by one method; write the scores and one mask per density."""
    target, seed, name = job.spec("target", TargetSpec), job.config["seed"], job.config["method"]
    arrays = images(job.spec("data", DataSpec))
    network = initial_network(target.network, arrays, seed).to(job.device)
    method = _method(job, name)
    batches = scoring_batches(job, arrays, seed)
    densities: list[float] = job.config["densities"]
    stream = seeding.generator(seed, "criterion", name)
    scores = method.score(network, batches, stream, head=target.network.prune_head, density=min(densities))
    scores = {layer: score.detach().cpu() for layer, score in scores.items()}
    job.store.write(f"{job.config['step']}/scores.safetensors", dump_tensors(scores))
    cuts = {}
    for density in densities:
        mask = method.allocate(scores, density, floor=job.config["min_per_layer"])
        key = f"{job.config['step']}/mask-{density:g}.safetensors"
        job.store.write(key, dump_mask(mask))
        cuts[f"{density:g}"] = {
            "mask": key,
            "kept": masks.kept(mask),
            "density": masks.density(mask),
            "collapsed": masks.collapsed_layers(mask),
            "layer_densities": masks.layer_densities(mask),
            "checksum": masks.checksum(mask),
        }
    weights = sum(score.numel() for score in scores.values())
    return {"method": name, "seed": seed, "target": target.network.label, "weights": weights, "cuts": cuts, "data_digest": arrays.digest}


def _method(job: Job, name: str) -> Criterion:
    if name != SCORER:
        return CRITERIA[name]
    scorer, _ = load_scorer(job.store, job.config["scorer"])
    return Criterion(score=as_criterion(scorer.to(job.device)))
