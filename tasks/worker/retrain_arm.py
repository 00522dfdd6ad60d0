"""One arm of the fan-out inside a Ray Train job: the initial weights under a mask, trained, tested."""

from typing import Any

from torch import nn

from models import gates, masks
from models.specs import DataSpec, NetworkSpec
from storage import paths
from storage.image_datasets import ImageArrays
from storage.mask_files import load_mask
from tasks.worker.job import Job, body, images
from tasks.worker.train_network import dump_state, initial_network, load_state, read_state, train_network


@body
def retrain_arm(job: Job) -> dict[str, Any]:
    """Train the network from its initial weights, or from `state`, under `mask`; no mask is the dense end of the scale."""
    spec, seed, key = job.spec("network", NetworkSpec), job.config["seed"], job.config["mask"]
    arrays = images(job.spec("data", DataSpec))
    network = starting_network(job, spec, arrays)
    mask = load_mask(job.store.read(key)) if key else masks.full(masks.prunable(network, head=spec.prune_head))
    effective_density = gates.effective_density(network, mask, arrays.image_shape)
    history = train_network(job, network, arrays, mask=mask, seed=seed, start_step=job.config["start_step"])
    if job.rank.index == 0:
        job.store.write(paths.weights(job.config["step"]), dump_state(network))
    return {
        "accuracy": history[-1]["accuracy"],
        "loss": history[-1]["loss"],
        "epochs": history,
        "kept": masks.kept(mask),
        "weights": masks.total(mask),
        "kept_density": masks.density(mask),
        "effective_density": effective_density,
        "data_digest": arrays.digest,
    }


def starting_network(job: Job, spec: NetworkSpec, arrays: ImageArrays) -> nn.Module:
    """The network as the arm begins: from `state`, or drawn from `init_seed` where there is one, else from the arm's own seed.

    Whatever else is random in the arm belongs to its own seed.
    """
    init_seed = job.config.get("init_seed")
    network = initial_network(spec, arrays, job.config["seed"] if init_seed is None else init_seed)
    if job.config["state"]:
        load_state(network, read_state(job, job.config["state"]))
    return network
