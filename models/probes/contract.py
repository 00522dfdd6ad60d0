"""What a probe is made of: its call shape, its record, and what both are checked for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from autosparse.models.errors import DivergedError
from autosparse.models.gradients import Batches
from autosparse.models.specs.run_specs import Spec

NETWORK, OTHER, THIRD = "network", "other", "third"  # the roles: what is measured, what it is compared with, a corner of a plane

Record = dict[str, float | list[Any]]  # named numbers, and lists of numbers of one or two levels: JSON as it is


class ProbeFn(Protocol):
    """Measures networks of one architecture on fixed batches; they are the same bit for bit afterwards.

    `networks` holds them by role. Each batch is (images, labels); images may be channels_last. Randomness comes from
    `generator` only, so the same call gives the same record. Raises SpecError for bad input, DivergedError for a loss that is
    NaN or infinite.
    """

    def __call__(self, networks: Mapping[str, nn.Module], batches: Batches, generator: torch.Generator, settings: Any, /) -> Record: ...


@dataclass(frozen=True)
class Probe:
    """A measurement, the type of its settings, the roles it needs and those it makes use of."""

    run: ProbeFn
    settings: type[Spec]
    needs: frozenset[str] = frozenset({NETWORK})
    uses: frozenset[str] = frozenset()


def finite(field: str, value: float, where: str) -> float:
    """`value`, unless it is NaN or infinite: then DivergedError with `where` it happened."""
    if not math.isfinite(value):
        raise DivergedError(f"{field}: {value} {where} is not allowed; allowed: finite")
    return value
