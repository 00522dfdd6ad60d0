"""The minima of two arms on Ray: both networks from the store, fixed batches of training images, every probe asked for."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autosparse.models import seeding
from autosparse.models.probes.diffusion import noise_scale
from autosparse.models.probes.pair import Pair, measure
from autosparse.models.specs.fanout import ValleySpec
from autosparse.models.specs.fields import Spec
from autosparse.models.specs.run_specs import DataSpec, NetworkSpec, Seed, TrainSpec
from autosparse.storage import paths
from autosparse.storage.damage import damaged
from autosparse.tasks.worker.job import Job, body
from autosparse.tasks.worker.problem import Problem, initial_network, open_problem
from autosparse.tasks.worker.train_network import load_state, read_state


@dataclass(frozen=True, kw_only=True, slots=True)
class PairInputs(Spec):
    """Two arms of one network, by their steps in the store, how they were trained, and what is measured with random numbers of `seed`."""

    network: NetworkSpec
    data: DataSpec
    train: TrainSpec
    valley: ValleySpec
    seed: Seed
    first: str
    second: str


@body(PairInputs)
def probe_pair(job: Job, inputs: PairInputs) -> dict[str, Any]:
    """Measure what lies between the two trained networks."""
    settings, train, seed, problem = inputs.valley, inputs.train, inputs.seed, open_problem(inputs.data, job.cache)
    first, second = (trained(job, inputs, problem, step) for step in (inputs.first, inputs.second))
    pair = Pair(
        first,
        second,
        batches=batches(job, inputs, problem, settings.images, settings.batch_size),
        curvature=batches(job, inputs, problem, min(settings.curvature_images, settings.images), settings.batch_size),
        settings=settings,
        train_batch_size=train.batch_size,
        stream=lambda name: seeding.generator(seed, "valley", name),
    )
    begun: dict[str, float] = {}

    def tell(name: str) -> None:
        begun[name] = time.monotonic()
        job.tell("note", message=name)

    records, failed = measure(pair, settings.probes, tell)
    return {
        "records": records,
        "failed": failed,
        "parameters": sum(param.numel() for param in first.parameters()),
        "images": min(settings.images, problem.sizes["train"]),
        "curvature_images": min(settings.curvature_images, settings.images, problem.sizes["train"]),
        "lr_over_batch": noise_scale(train.lr, train.batch_size),
        "probe_seconds": durations(begun, time.monotonic()),
        "data_digest": problem.digest,
    }


def trained(job: Job, inputs: PairInputs, problem: Problem, step: str) -> nn.Module:
    """The network as the arm of `step` left it. Raises DataError where its weights are not those of this network."""
    network = initial_network(inputs.network, problem, seed=0)  # which draws nothing that stays
    key = paths.weights(step)
    try:
        load_state(network, read_state(job, key))
    except RuntimeError as error:  # of load_state_dict: names and shapes, several lines of them
        reason = str(error).splitlines()[-1].strip()
        raise damaged(job.store.uri(key), f"not the weights of {inputs.network.name} ({reason})") from None
    return network.to(job.device)


def batches(job: Job, inputs: PairInputs, problem: Problem, count: int, size: int) -> list[tuple[Tensor, Tensor]]:
    """The first `count` of the training images in an order that the seed fixes, not augmented, in batches of at most `size`.

    Batches differ by one image at most, so none is too small for BatchNorm.
    """
    order = torch.randperm(problem.sizes["train"], generator=seeding.generator(inputs.seed, "valley", "images"))[:count]
    rows = order.tensor_split(-(-len(order) // size))
    return list(problem.few(rows, job.device, channels_last=False))


def durations(begun: dict[str, float], end: float) -> dict[str, float]:
    """Seconds of each probe, from when each began (in this order) and when the last one ended."""
    ends = [*list(begun.values())[1:], end]
    return {name: later - start for (name, start), later in zip(begun.items(), ends, strict=True)}
