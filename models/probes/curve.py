"""Curves of low loss between two networks: quadratic Bezier curves with one bend (Garipov et al. 2018, arXiv 1802.10026).

As in the valley analysis of directional pruning (Chao et al. 2020, arXiv 2006.09358): end points fixed, the bend starts in the
middle of the straight line, BatchNorm statistics are taken anew at every point that is measured.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
from torch import Tensor, nn

from autosparse.models.errors import not_allowed
from autosparse.models.gradients import Batches
from autosparse.models.probes.contract import NETWORK, OTHER, Record, finite
from autosparse.models.probes.surface import Measure, Surface
from autosparse.models.probes.vectors import check_same_shapes, flatten
from autosparse.models.specs.rules import Range
from autosparse.models.specs.run_specs import Count, Spec


@dataclass(frozen=True, kw_only=True, slots=True)
class CurveSettings(Spec):
    """How the bend is trained, by plain SGD without weight decay, and at how many places the curve is measured.

    The learning rate stays for the first half, falls linearly to `final_lr` times itself at 90 % and stays there; 1 keeps it all
    along. Published: lr 0.1, momentum 0.9 and 300 epochs (VGG-16) or momentum 0 and 200 epochs (WRN), 61 points; that the bend was
    trained with this fall of the learning rate is an assumption. A step is one batch, or `draws` batches with as many values of t,
    one from each of equal parts of [0, 1]; published: 1.
    """

    steps: Count = 1000
    lr: Annotated[float, Range(above=0)] = 0.1
    momentum: Annotated[float, Range(least=0, below=1)] = 0.9
    final_lr: Annotated[float, Range(above=0, most=1)] = 0.01
    draws: Count = 1
    points: Annotated[int, Range(least=2)] = 61


def curve(networks: Mapping[str, nn.Module], batches: Batches, generator: torch.Generator, settings: CurveSettings) -> Record:
    """Loss and error on the trained curve (`curve_...`) and the straight line (`line_...`) from `other` at t = 0 to `network` at t = 1.

    For each of both: `t`, and of loss and error all values and the figures of `summary`. Memory: five parameter vectors.
    """
    check_same_shapes(networks[OTHER], networks[NETWORK])
    start, end = flatten(networks[OTHER]), flatten(networks[NETWORK])
    surface = Surface(networks[NETWORK], batches)
    bend = train_bend(surface.training_loss(), start, end, generator, settings)
    return curve_record(surface.measure, start, bend, end, settings.points)


def curve_record(measure: Measure, start: Tensor, bend: Tensor, end: Tensor, points: int) -> Record:
    """What `along` says at `points` values of t, of the curve with that bend (`curve_...`) and of the straight line (`line_...`)."""
    record: Record = {}
    for name, control in (("curve", bend), ("line", midpoint(start, end))):
        walk = along(measure, start, control, end, even(points))
        record |= {f"{name}_{key}": value for key, value in walk.items()}
    return record


def bezier(start: Tensor, bend: Tensor, end: Tensor, t: float) -> Tensor:
    """phi(t) = (1-t)^2 start + 2t(1-t) bend + t^2 end. Raises SpecError for t outside [0, 1]."""
    if not 0.0 <= t <= 1.0:
        raise not_allowed("t", t, ">= 0 and <= 1")
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end


def midpoint(start: Tensor, end: Tensor) -> Tensor:
    """The bend of the straight line, on which t runs evenly. Raises SpecError when the ends are not of one shape."""
    if start.shape != end.shape or start.ndim != 1:
        raise not_allowed("end points", (tuple(start.shape), tuple(end.shape)), "two vectors of the same length")
    return (start + end) / 2


def even(points: int) -> list[float]:
    """`points` values of t from 0 to 1 at equal distances."""
    return [index / (points - 1) for index in range(points)]


def train_bend(
    loss: Callable[[Tensor], Tensor],
    start: Tensor,
    end: Tensor,
    generator: torch.Generator,
    settings: CurveSettings,
    *,
    first: Tensor | None = None,
) -> Tensor:
    """The bend (d,) that makes the mean of `loss` over t ~ U(0, 1) small, by SGD; `loss` takes a point (d,) and may change batches.

    It starts at `first`, by default in the middle of the straight line (where a symmetric loss may hold it: then give another).
    Raises SpecError when the vectors are not of one shape, DivergedError for a loss that is NaN or infinite.
    """
    middle = midpoint(start, end)
    if first is not None and first.shape != middle.shape:
        raise not_allowed("first", tuple(first.shape), f"the shape of the end points, {tuple(middle.shape)}")
    bend = (middle if first is None else first).detach().clone().requires_grad_()
    optimizer = torch.optim.SGD([bend], lr=settings.lr, momentum=settings.momentum)
    for step in range(settings.steps):
        optimizer.param_groups[0]["lr"] = settings.lr * _fall(step / settings.steps, settings.final_lr)
        optimizer.zero_grad()
        shifts = torch.rand(settings.draws, generator=generator, device=generator.device, dtype=torch.float64).tolist()
        for part, shift in enumerate(shifts):
            t = (part + shift) / settings.draws
            with torch.enable_grad():
                value = loss(bezier(start, bend, end, t)) / settings.draws
            finite("curve.loss", float(value.detach()), f"at step {step}, t = {t:.3f}")
            value.backward()
        optimizer.step()
    return bend.detach()


def along(measure: Measure, start: Tensor, bend: Tensor, end: Tensor, ts: Sequence[float]) -> Record:
    """All that `measure` names at each of `ts` (rising), `t`, and the figures of `summary` as `NAME_min` and so on.

    Raises SpecError for t outside [0, 1], DivergedError for a value that is NaN or infinite.
    """
    columns: dict[str, list[float]] = {}
    steps: list[float] = []
    last = None
    for t in ts:
        point = bezier(start, bend, end, t)
        for name, value in measure(point).items():
            columns.setdefault(name, []).append(finite(f"curve.{name}", value, f"at t = {t:.3f}"))
        if last is not None:
            steps.append(float(torch.linalg.vector_norm(point - last, dtype=torch.float64)))
        last = point
    record: Record = {"t": list(ts), "length": sum(steps)}
    for name, values in columns.items():
        record[name] = list(values)
        record |= {f"{name}_{key}": figure for key, figure in summary(values, ts, steps).items()}
    return record


def summary(values: Sequence[float], ts: Sequence[float], steps: Sequence[float]) -> dict[str, float]:
    """`min`, `max`, `mean` over t and `integral` over arc length, of values at `ts` with chords of length `steps` in between.

    Both integrals by the trapezoidal rule, so the mean estimates what the training of the bend makes small; the published code
    takes the plain mean of the values, which counts the end points in full.
    """
    halves = [(left + right) / 2 for left, right in pairwise(values)]
    gaps = [right - left for left, right in pairwise(ts)]
    mean = sum(half * gap for half, gap in zip(halves, gaps, strict=True)) / (ts[-1] - ts[0])
    integral = sum(half * step for half, step in zip(halves, steps, strict=True))
    return {"min": min(values), "max": max(values), "mean": mean, "integral": integral}


def _fall(done: float, final: float) -> float:
    return 1.0 if done <= 0.5 else max(final, 1.0 - (1.0 - final) * (done - 0.5) / 0.4)
