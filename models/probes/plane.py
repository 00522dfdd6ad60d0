"""The plane through three networks: loss and error on a grid (Garipov et al. 2018, arXiv 1802.10026, section 3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn

from autosparse.models.errors import SpecError
from autosparse.models.gradients import Batches
from autosparse.models.probes.contract import NETWORK, OTHER, THIRD, Record, finite
from autosparse.models.probes.curve import CurveSettings, train_bend
from autosparse.models.probes.surface import Measure, Surface
from autosparse.models.probes.vectors import check_same_shapes, flatten
from autosparse.models.specs.rules import Range
from autosparse.models.specs.run_specs import Spec

BEND = CurveSettings()
FLAT = 1e-6  # a third point nearer to the line through the others, as a share of its distance, spans no plane


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaneSettings(Spec):
    """`size` x `size` cells; on each side the grid goes beyond the points by `margin` times their extent in that direction.

    `curve` says how the third point is found where none is given: it is the bend of the curve between the other two.
    """

    size: Annotated[int, Range(least=2)] = 29
    margin: Annotated[float, Range(least=0)] = 0.2
    curve: CurveSettings = BEND


class Plane(NamedTuple):
    """Points origin + x u + y v, in float64: `u` and `v` (d,) orthonormal, `corners` the (x, y) of the three points."""

    origin: Tensor
    u: Tensor
    v: Tensor
    corners: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]

    def at(self, x: float, y: float) -> Tensor:
        """The point (d,) at distances x and y from the origin."""
        return self.origin + x * self.u + y * self.v


def plane(networks: Mapping[str, nn.Module], batches: Batches, generator: torch.Generator, settings: PlaneSettings) -> Record:
    """`loss` and `error` as lists of rows, one per y, on the plane through `other` (the origin), `network` (on the x axis) and `third`.

    Without a `third` network, the bend of the curve that `settings.curve` trains. `corners` are the points in that order, `x` and
    `y` the grid lines. One pass for the BatchNorm statistics and one for the loss per cell. Memory: six vectors in float64.
    """
    check_same_shapes(networks[OTHER], networks[NETWORK])
    start, end = flatten(networks[OTHER]), flatten(networks[NETWORK])
    surface = Surface(networks[NETWORK], batches)
    if THIRD in networks:
        check_same_shapes(networks[THIRD], networks[NETWORK])
        third = flatten(networks[THIRD])
    else:
        third = train_bend(surface.training_loss(), start, end, generator, settings.curve)
    through = plane_through(start, end, third)
    return survey(surface.measure, through, *grid_lines(through, size=settings.size, margin=settings.margin))


def plane_through(first: Tensor, second: Tensor, third: Tensor) -> Plane:
    """The plane with its origin at `first`, u towards `second`, v towards `third` by Gram-Schmidt; all (d,).

    Raises SpecError for vectors of different lengths and for three points on one line.
    """
    if not first.shape == second.shape == third.shape or first.ndim != 1:
        shapes = ", ".join(str(tuple(point.shape)) for point in (first, second, third))
        raise SpecError(f"plane: points of shapes {shapes} are not allowed; allowed: three vectors of the same length")
    origin = first.detach().double()
    across, aside = second.detach().double() - origin, third.detach().double() - origin
    width = float(across.norm())
    u = across / width
    x = float(u @ aside)
    v = aside - x * u
    v = v - (u @ v) * u  # again: the first time leaves rounding of the size of `aside`
    height = float(v.norm())
    if not height > FLAT * float(aside.norm()) or not width > 0.0:
        raise SpecError("plane: three points on one line are not allowed; allowed: three points that span a plane")
    return Plane(origin, u, v / height, ((0.0, 0.0), (width, 0.0), (x, height)))


def grid_lines(plane: Plane, *, size: int = 29, margin: float = 0.2) -> tuple[list[float], list[float]]:
    """`size` values of x and of y over the extent of the three points and `margin` times it on each side."""

    def lines(places: list[float]) -> list[float]:
        low, high = min(places), max(places)
        beyond = margin * (high - low)
        return torch.linspace(low - beyond, high + beyond, size, dtype=torch.float64).tolist()

    return lines([x for x, _ in plane.corners]), lines([y for _, y in plane.corners])


def survey(measure: Measure, plane: Plane, xs: list[float], ys: list[float]) -> Record:
    """What `measure` names at every cell, as lists of rows (one per y), with `corners`, `x` and `y`.

    Raises DivergedError for a value that is NaN or infinite.
    """
    tables: dict[str, list[list[float]]] = {}
    for row, y in enumerate(ys):
        for x in xs:
            for name, value in measure(plane.at(x, y)).items():
                rows = tables.setdefault(name, [[] for _ in ys])
                rows[row].append(finite(f"plane.{name}", value, f"at x = {x:.3g}, y = {y:.3g}"))
    return {"corners": [list(corner) for corner in plane.corners], "x": xs, "y": ys, **tables}
