"""What a person's own module may hold: a criterion, a method, a recipe, and everything that is none."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch

from autosparse.flows.recipes import smoke
from autosparse.models.criteria.contract import Criterion
from autosparse.models.masks.allocation import uniform_topk
from autosparse.models.masks.mask import Scores, prunable
from autosparse.models.methods.contract import Method, Parts, Settings, Setup
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.rules import Range


def size(network: Any, batches: Any, generator: Any, *, head: bool = True, density: float) -> Scores:
    """|w|, as `magnitude`."""
    return {name: weight.detach().abs() for name, weight in prunable(network, head=head).items()}


SIZE_PER_LAYER = Criterion(size, uniform_topk)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decay(Settings):
    c: Annotated[float, Range(least=0, most=1)] = 0.01
    kind: str = "plain"


def parts(setup: Setup, settings: Decay) -> Parts:
    optimizer = torch.optim.SGD(setup.network.parameters(), lr=setup.train.lr, weight_decay=settings.c)
    return Parts(optimizer=optimizer, facts=lambda: {"decay": settings.c})


DECAY = Method(settings=Decay, levels=(Decay(), Decay(c=0.5)), by_density=False, parts=parts, card="Weight decay c, for tests.")
ONE_LEVEL = Method(
    settings=Decay,
    levels=(Decay(),),
    by_density=True,
    parts=parts,
    card="For tests.",
    refuses=lambda setup, settings: "density: too low; allowed: >= 0.2" if (setup.density or 0) < 0.2 else None,
)
UNSPEAKABLE = Method(settings=Decay, levels=(Decay(kind="a+b"),), by_density=False, parts=parts, card="For tests.")


def recipe() -> ExperimentSpec:
    """The registered one by another name."""
    return smoke()


NUMBER = 3


def nothing() -> None: ...


def of_another(width: int) -> ExperimentSpec: ...


def fails() -> ExperimentSpec:
    raise ZeroDivisionError("in the recipe\nsecond line")
