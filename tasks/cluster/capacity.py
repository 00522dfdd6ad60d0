"""Whether a job fits at all, and how many do; imports no Ray, so that a bad answer comes at once."""

from autosparse.models import errors
from autosparse.models.specs.run_specs import JobSpec


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
    """How many such jobs fit at once on a cluster of that size. Raises CapacityError when not even one does."""
    check_capacity(job, cpus, gpus)
    by_gpu = gpus // (job.workers * job.gpus_per_worker) if job.gpus_per_worker else float("inf")
    return int(min(cpus // (job.workers * job.cpus_per_worker), by_gpu))
