"""One arm of the fan-out inside a Ray Train job: the initial weights, under a mask or by a method, trained, tested.

What is tested is what would be used: without gates and thresholds, rewritten where a method rewrites.
"""

import resource
import sys
import time
from typing import Any

import torch
from torch import nn

from autosparse.models import seeding
from autosparse.models.arms.controls import CONTROLS, Control
from autosparse.models.masks import gates
from autosparse.models.masks import mask as masks
from autosparse.models.masks.mask import Mask
from autosparse.models.methods import outcome
from autosparse.models.methods.contract import Parts, Setup
from autosparse.models.methods.registry import find_method
from autosparse.models.networks.flops import forward_macs
from autosparse.models.specs.fields import from_plain
from autosparse.models.specs.run_specs import DataSpec, NetworkSpec, TrainSpec
from autosparse.models.training.loop import evaluate
from autosparse.models.training.trainer import Trainer
from autosparse.storage import paths
from autosparse.storage.image_datasets import ImageArrays
from autosparse.tasks.worker.job import Job, body, images
from autosparse.tasks.worker.train_network import dump_state, initial_network, load_state, open_trainer, place, read_mask, read_state, train


@body
def retrain_arm(job: Job) -> dict[str, Any]:
    """Train the network from its initial weights, or from `state`, under `mask` or by `method`; neither is the dense end of the scale."""
    spec, arrays = job.spec("network", NetworkSpec), images(job.spec("data", DataSpec))
    network = place(job, starting_network(job, spec, arrays))
    macs = forward_macs(network, arrays.image_shape)
    mask = _mask(job, network, spec)
    parts = method_parts(job, network, arrays, spec)
    own = outcome.own_tensors(network, parts)
    trainer = open_trainer(job, network, arrays, mask=mask, seed=job.config["seed"], start_step=job.config["start_step"], parts=parts)

    def cost(trainer: Trainer, steps: int) -> dict[str, float]:
        return {"training_macs": steps * trainer.spec.batch_size * outcome.step_macs(macs, trainer.mask)}

    history = train(job, trainer, figures=cost)
    plain = outcome.bake(network, parts)
    if job.rank.index == 0:
        job.store.write(paths.weights(job.config["step"]), dump_state(plain))
    found = _evaluated(trainer, plain, arrays, spec, own, job.config["seed"])
    kept = {name: keep.cpu() for name, keep in (mask or outcome.nonzero(plain, head=spec.prune_head)).items()}
    effective = gates.effective_density(plain, kept, arrays.image_shape)
    return {
        **found,
        "collapsed": (masks.collapsed_layers(kept) or list(kept)) if effective == 0 else [],  # without a path, a network is none
        "loss": history[-1]["loss"],
        "epochs": history,
        "kept": masks.kept(kept),
        "weights": masks.total(kept),
        "kept_density": masks.density(mask) if mask else found["kept_density"],
        "effective_density": effective,
        "data_digest": arrays.digest,
        "training_macs": sum(record["training_macs"] for record in history),
        "training_seconds": sum(record["seconds"] for record in history),
        "peak_memory_bytes": peak_memory(job.device),
        "lr_over_batch": trainer.spec.lr / trainer.spec.batch_size,
        "replaces": outcome.replaced(parts),
        "facts": history[-1]["facts"],
        "expected_density": history[-1]["facts"].get("expected_density"),
    }


def method_parts(job: Job, network: nn.Module, arrays: ImageArrays, spec: NetworkSpec) -> Parts:
    """What the arm's method puts into the training, attached to the network; nothing where the arm is a mask at step 0."""
    chosen = job.config.get("method")
    if not chosen:
        return Parts()
    method, train = find_method(chosen["name"]), job.spec("train", TrainSpec)
    setup = Setup(
        network=network,
        train=train,
        density=chosen["density"],
        head=spec.prune_head,
        image_shape=arrays.image_shape,
        steps_per_epoch=len(arrays.train_labels) // train.batch_size,
        seed=job.config["seed"],
    )
    return method.parts(setup, from_plain(method.settings, chosen["settings"]))


def _mask(job: Job, network: nn.Module, spec: NetworkSpec) -> Mask | None:
    """The arm's mask, all weights for the dense arm, None where a method decides."""
    if job.config.get("method"):
        return None
    key = job.config["mask"]
    return read_mask(job, key) if key else masks.full(masks.prunable(network, head=spec.prune_head))


def _evaluated(trainer: Trainer, plain: nn.Module, arrays: ImageArrays, spec: NetworkSpec, own: set[str], seed: int) -> dict[str, Any]:
    """Accuracy, densities and costs of the network in use, which is `plain` or what the method makes of it."""
    parts = trainer.parts
    used = parts.rewrite(plain, seeding.generator(seed, "method", "rewrite")) if parts.rewrite else plain
    trainer.network = trainer.forward = used
    start = time.monotonic()
    accuracy = evaluate(trainer)
    seconds = time.monotonic() - start
    metered = parts.cost(used) if parts.cost else None  # of the test images: before anything else goes through the network
    return {
        "accuracy": accuracy,
        **outcome.densities(used, plain, head=spec.prune_head, own=own),
        "inference_macs": outcome.inference_macs(used, forward_macs(used, arrays.image_shape), metered),
        "inference_seconds": seconds,
        "images_per_second": len(trainer.test.labels) / seconds,
    }


def peak_memory(device: torch.device) -> int:
    """Bytes: of tensors on the GPU, or of this whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def starting_network(job: Job, spec: NetworkSpec, arrays: ImageArrays) -> nn.Module:
    """The network as the arm begins: from `state`, else drawn from the arm's seed, or as its control has it.

    Whatever else is random in the arm belongs to its own seed.
    """
    seed, name = job.config["seed"], job.config.get("control")
    control = CONTROLS[name] if name else Control()
    network = initial_network(spec, arrays, control.init_seed(seed) if control.init_seed else seed)
    if job.config["state"]:
        load_state(network, read_state(job, job.config["state"]))
    if control.weights:
        control.weights(network, read_mask(job, job.config["mask"]))
    return network
