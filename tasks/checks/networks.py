"""Networks as checks look at them before anything starts: for what they will see, where that is known without opening images."""

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from autosparse.models.networks.build import build_network
from autosparse.models.networks.calls import Shape
from autosparse.models.specs.run_specs import DataSpec, NetworkSpec
from autosparse.models.training.own_task import OwnTask
from autosparse.storage.image_datasets import SIZES
from autosparse.tasks.worker.problem import is_own, open_problem


@dataclass(frozen=True, eq=False)
class Seen:
    """What a network must know of a data set, as `build_network` takes it; not `known` where nobody has opened its images yet."""

    image_shape: Shape
    num_classes: int | None
    given: dict[str, Any] | None = None
    known: bool = True
    task: OwnTask | None = None

    @property
    def fit(self) -> dict[str, Any]:
        """The keywords of `build_network` and `narrow_network`."""
        return {"image_shape": self.image_shape, "num_classes": self.num_classes, "given": self.given}


UNKNOWN = Seen((3, 32, 32), 10, known=False)  # near enough for a data set that nobody has opened yet


def seen_of(data: DataSpec) -> Seen:
    """That of a data set that is the same everywhere, else UNKNOWN, each in the size that is asked for; that of a task of one's own.

    Raises SpecError for a task that will not do.
    """
    if is_own(data):
        problem = open_problem(data, None)
        return Seen(**problem.fit, task=problem.own)
    seen = Seen(*SIZES[data.name]) if data.name in SIZES else UNKNOWN
    return seen if data.size is None else replace(seen, image_shape=(seen.image_shape[0], data.size, data.size))


def build(network: NetworkSpec, seen: Seen) -> nn.Module:
    """The network as drawn from seed 0, tried where its inputs are known. Raises what `build_network` raises."""
    return build_network(network, seed=0, tried=seen.known, **seen.fit)
