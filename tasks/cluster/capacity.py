"""Whether a job fits at all, and how many of them a run may have at once; imports no Ray, so that a bad answer comes at once."""

import math
from collections.abc import Iterable, Mapping

from autosparse.models import errors
from autosparse.models.specs.run_specs import JobSpec

Resources = Mapping[str, float]


def check_capacity(job: JobSpec, cpus: float, gpus: float) -> None:
    """Raise CapacityError when one job of this shape can never be placed on a cluster of that size."""
    for name, asked, has in (
        ("cpus_per_worker", job.workers * job.cpus_per_worker, cpus),
        ("gpus_per_worker", job.workers * job.gpus_per_worker, gpus),
    ):
        if asked > has:
            value = f"{job.workers} workers x {getattr(job, name):g}"
            raise errors.CapacityError(f"job.{name}: {value} = {asked:g} is not allowed; allowed: at most the {has:g} of the cluster")


def slots_of(job: JobSpec, cpus: float, gpus: float) -> int:
    """How many such jobs fit at once into a cluster of that size."""
    by_gpu = gpus // (job.workers * job.gpus_per_worker) if job.gpus_per_worker else math.inf
    return int(min(cpus // (job.workers * job.cpus_per_worker), by_gpu))


def fair_share(slots: int, runs: int) -> int:
    """Of so many slots, what one of so many runs takes at most: its part, rounded up, and always one."""
    return max(1, math.ceil(slots / max(1, runs)))


def bundle(job: JobSpec) -> dict[str, float]:
    """What one worker of a job asks of its node."""
    return {"CPU": job.cpus_per_worker} | ({"GPU": job.gpus_per_worker} if job.gpus_per_worker else {})


def has_room(job: JobSpec, nodes: Iterable[Resources]) -> bool:
    """Whether the job could be placed if nobody else used these nodes: no worker spans two of them."""
    wanted = bundle(job)
    return sum(min(int(node.get(name, 0) // asked) for name, asked in wanted.items() if asked) for node in nodes) >= job.workers
