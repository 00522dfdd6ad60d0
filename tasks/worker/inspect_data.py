"""What an image data set holds, asked on the cluster before anything is trained."""

from dataclasses import dataclass
from typing import Any

from autosparse.models.specs.fields import Spec
from autosparse.models.specs.run_specs import DataSpec, NetworkSpec
from autosparse.tasks.worker.dry_run import dry_run
from autosparse.tasks.worker.job import Job, body
from autosparse.tasks.worker.problem import open_problem


@dataclass(frozen=True, kw_only=True, slots=True)
class Named(Spec):
    """A network and the field of the spec that names it."""

    field: str
    network: NetworkSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class DataInputs(Spec):
    """The data set to look into, and the networks that are to learn from it, by the fields of the spec that name them."""

    data: DataSpec
    networks: tuple[Named, ...]


@body(DataInputs)
def inspect_data(job: Job, inputs: DataInputs) -> dict[str, Any]:
    """Digest and counts; shape and class names of images, whose decoding fills the node's cache, and `notes` where something was left
    out; the metric of a task of one's own."""
    problem = open_problem(inputs.data, job.cache, lambda message: job.tell("note", message=message))
    for one in inputs.networks:
        dry_run(problem, one.network, one.field)
    return {"digest": problem.digest, **problem.sizes, **problem.facts}
