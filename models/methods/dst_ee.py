"""DST-EE and, with other scores, RigL and SET.

DST-EE, "Dynamic Sparse Training via Balancing the Exploration-Exploitation Trade-off" (Huang et al., DAC 2023, arXiv 2211.16667): grow

    |dL/dw| + c * ln(t) / (N + eps)

t the training step, N at how many masks the weight was active. This is a reconstruction: idea and frame are published, the exact
formula, c, eps, the interval and the drop rate were not at hand [unverified] and are settings. RigL is c = 0 (Evci et al. 2020,
arXiv 1911.11134); SET grows at random (Mocanu et al. 2018, Nature Communications 9); `unfired` grows at random what was never
active before (Liu et al. 2021, arXiv 2102.02887).
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch

from autosparse.models import seeding
from autosparse.models.errors import not_allowed
from autosparse.models.methods import budgets
from autosparse.models.methods.contract import Method, Parts, Settings, Setup
from autosparse.models.methods.drop_and_grow import Acquire, Candidates, DropAndGrow, Growth, Plan, random_mask
from autosparse.models.specs.rules import Range

UPDATES = 40  # in a whole training, of which those before `end` happen; the code this builds on has 24 to 65 in its long trainings

Grow = Literal["exploration", "gradient", "random", "unfired"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DropGrow(Settings):
    """`interval`: steps between updates, None = a fortieth of the training. `drop_rate`: share of a layer's active weights that the
    first updates replace, falling to 0 along half a cosine until the share `end` of the training. RigL's are 0.3 and 0.75."""

    interval: Annotated[int, Range(least=1)] | None = None
    drop_rate: Annotated[float, Range(above=0, most=1)] = 0.3
    end: Annotated[float, Range(above=0, most=1)] = 0.75


@dataclass(frozen=True, kw_only=True, slots=True)
class DstEe(DropGrow):
    """`c` weighs exploration against |gradient|; how the two compare is the fact `score_ratio`. `eps` tells how much more a weight
    that was never active is worth than one that was once."""

    grow: Grow = "exploration"
    c: Annotated[float, Range(least=0)] = 1e-3
    eps: Annotated[float, Range(above=0)] = 1.0


def acquisition(grow: Grow, *, c: float, eps: float) -> Acquire:
    """The score by which inactive weights are grown; `c` and `eps` belong to "exploration"."""

    def exploration(layer: Candidates, step: int, generator: torch.Generator) -> Growth:
        bonus = c * math.log(step) / (layer.active + eps)
        return Growth(layer.gradient.abs() + bonus, bonus)

    def gradient(layer: Candidates, step: int, generator: torch.Generator) -> Growth:
        return Growth(layer.gradient.abs())

    def random(layer: Candidates, step: int, generator: torch.Generator) -> Growth:
        return Growth(torch.rand(layer.gradient.shape, generator=generator).to(layer.gradient.device))

    def unfired(layer: Candidates, step: int, generator: torch.Generator) -> Growth:
        return Growth(random(layer, step, generator).score + (layer.active == 0))

    return {"exploration": exploration, "gradient": gradient, "random": random, "unfired": unfired}[grow]


def interval(setup: Setup, settings: DropGrow) -> int:
    """Steps between updates."""
    return settings.interval or max(1, setup.steps // UPDATES)


def refuses(setup: Setup, settings: DropGrow) -> str | None:
    """A density that does not give each layer a weight, or an interval so long that the mask would never change."""
    if problem := budgets.refuses(setup, settings):
        return problem
    if interval(setup, settings) >= settings.end * setup.steps:
        return str(not_allowed("interval", interval(setup, settings), f"< {settings.end * setup.steps:g}, the steps with updates"))
    return None


def parts(setup: Setup, settings: DropGrow, *, grow: Grow | None = None) -> Parts:
    """A random first mask at the density of the arm and its schedule; `grow` takes the place of a setting. Raises SpecError."""
    draws = seeding.generator(setup.seed, "method", "first mask")
    mask = random_mask(setup.network, budgets.density(setup), draws, head=setup.head)
    plan = Plan(interval=interval(setup, settings), drop_rate=settings.drop_rate, end=settings.end * setup.steps)
    chosen = settings if isinstance(settings, DstEe) else DstEe()
    schedule = DropAndGrow(mask, plan, acquisition(grow or chosen.grow, c=chosen.c, eps=chosen.eps))
    return Parts(schedule=schedule, facts=lambda: {"interval": float(plan.interval)})


def _method(settings: type[DropGrow], grow: Grow | None, card: str) -> Method:
    return Method(settings=settings, levels=(settings(),), by_density=True, parts=partial(parts, grow=grow), card=card, refuses=refuses)


_FRAME = "Exact counts, Erdos-Renyi-kernel first mask, no optimizer step at an update, momentum of what comes and goes zeroed."

DST_EE = _method(
    DstEe,
    None,
    "Reconstruction of DST-EE (arXiv 2211.16667): the idea is published; the form of the exploration bonus, c, eps, the interval and the "
    f"drop rate are [unverified] settings. {_FRAME}",
)
RIGL = _method(
    DropGrow,
    "gradient",
    f"RigL (arXiv 1911.11134): grows the largest gradients. {_FRAME} The interval is a fortieth of the training.",
)
SET = _method(
    DropGrow,
    "random",
    "SET (Nature Communications 9, 2018): grows at random, but drops by magnitude alone and keeps its first allocation, as RigL does. "
    f"{_FRAME}",
)
