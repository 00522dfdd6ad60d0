"""Where the scores of `prune` are cut, and at which grain."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from autosparse.library.latency import LATENCY
from autosparse.models.channels.grain import Grained
from autosparse.models.criteria.contract import Criterion
from autosparse.models.errors import not_allowed
from autosparse.models.masks.allocation import by_layer
from autosparse.models.masks.mask import Mask, Scores
from autosparse.models.masks.mask import density as density_of
from autosparse.models.methods.names import spelled
from autosparse.models.specs.fields import from_plain
from autosparse.models.specs.grain import WEIGHTS, Grain, grain_of, names_grain


@dataclass(frozen=True)
class Cuts:
    """Where scores are cut: at densities, or shares of another cost, of the whole network, or at a density for each layer."""

    densities: tuple[float, ...]
    layers: Mapping[str, float] | None
    several: bool
    floor: int
    grain: Grain | None

    @classmethod
    def of(cls, density: Any, floor: int, grain: Grain | None) -> "Cuts":
        """Raises SpecError for a density outside (0, 1], of a layer outside [0, 1]."""
        if isinstance(density, Mapping):
            for name, share in density.items():
                if not _is_number(share) or not 0 <= share <= 1:
                    raise not_allowed(f"density of {name}", share, ">= 0 and <= 1")
            if grain:
                raise not_allowed("density", "one of each layer", f"one number, or several, at the grain {grain.grain}")
            return cls((), density, False, floor, None)
        several = isinstance(density, list | tuple)
        densities: tuple[Any, ...] = tuple(density) if several else (density,)
        for one in densities:
            if not _is_number(one) or not 0 < one <= 1:
                raise not_allowed("density", one, "> 0 and <= 1")
        if not densities:
            raise not_allowed("density", density, "at least one number > 0 and <= 1")
        return cls(tuple(map(float, densities)), None, several, floor, grain)

    @property
    def least(self) -> float:
        """The smallest density that is cut."""
        shares = self.densities or [share for share in (self.layers or {}).values() if share > 0]
        return min(shares, default=1.0)

    def made(
        self, criterion: Criterion, scores: Scores, grained: Grained | None, again: Callable[[nn.Module], Scores]
    ) -> Iterator[tuple[float, Mask]]:
        """Each density with its mask; `again` scores a smaller network, as in `Grained.cut`."""
        if self.layers is not None:
            mask = by_layer(scores, self.layers)
            yield density_of(mask), mask
        for density in self.densities:
            if grained:
                yield density, grained.cut(scores, density, allocate=criterion.allocate, again=again, floor=self.floor)
            else:
                yield density, criterion.allocate(scores, density, floor=self.floor)


def grain_of_call(method: Any, grain: str | Grain, cost: str) -> Grain | None:
    """The grain that `prune` is asked for, in the method's name or beside it; a latency is cut by multiply-adds. Raises SpecError."""
    found = _grain_of_call(method, grain, "multiply_adds" if cost == LATENCY else cost)
    if cost == LATENCY and (found is None or (found.grain, found.cost) != ("channels", "multiply_adds")):
        raise not_allowed("cost", cost, "with whole channels alone: grain='channels'")
    return found


def _grain_of_call(method: Any, grain: str | Grain, cost: str) -> Grain | None:
    if isinstance(method, str) and names_grain(method) and (found := grain_of(spelled("method", method)[0])):
        if grain != WEIGHTS:
            raise not_allowed("grain", grain, f"none beside {method!r}, which names it")
        return found
    if isinstance(grain, Grain):
        return grain
    return None if grain == WEIGHTS else from_plain(Grain, {"grain": grain, "cost": cost})


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
