"""SGD as a diffusion: is its noise the Hessian, and is escape from a minimum as slow as that says (Xie et al. 2021, arXiv 2002.03495).

The theory: near a critical point the covariance of a mini-batch gradient is C = H / B, so the noise of the walk has the diffusion
D = (lr / 2) C. The formulas are a reconstruction from the abstract and its consequences; their constants are not checked
against the paper.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from autosparse.models.errors import not_allowed
from autosparse.models.gradients import Batches, Loss
from autosparse.models.masks.reparametrized import copied
from autosparse.models.networks.calls import logits_of
from autosparse.models.probes.contract import NETWORK, Record
from autosparse.models.probes.hessian import HessianOperator, Spectrum, lanczos
from autosparse.models.specs.fields import to_plain
from autosparse.models.specs.rules import Range
from autosparse.models.specs.run_specs import Count, Spec

BARRIER = 0.25  # of the double well, from either minimum to the saddle


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseSettings(Spec):
    """`batch_size` is that of the training whose noise is asked for; `chunk` gradients of single images are in memory at a time."""

    k: Annotated[int, Range(least=2)] = 10
    iterations: Count | None = None
    batch_size: Count = 128
    chunk: Count = 16


class Fit(NamedTuple):
    """The line y = slope x + intercept by least squares, and the share `r2` of the variance of y that it explains."""

    slope: float
    intercept: float
    r2: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Escape(Spec):
    """One setting of SGD in the double well L = (h w^2 - 1)^2 / 4: curvature 2 h at its minima, -h at its saddle, barrier 1/4.

    `batch_size` stands for B in the noise and need not be whole; `sharpness` is h.
    """

    batch_size: Annotated[float, Range(above=0)]
    lr: Annotated[float, Range(above=0)]
    sharpness: Annotated[float, Range(above=0)] = 1.0


def noise(networks: Mapping[str, nn.Module], batches: Batches, generator: torch.Generator, settings: NoiseSettings) -> Record:
    """Noise-Hessian alignment: v_i' C v_i against lambda_i / B in the top-k eigenvectors v_i of the Hessian at `network`.

    `slope`, `intercept` and `r2` of the line; theory: 1, 0 and 1. `curvature` (lambda_i / B) and `noise` (v_i' C v_i) are what it
    is drawn through. Operator and gradients have BatchNorm in eval mode; see `HessianOperator`.
    """
    spectrum = lanczos(HessianOperator(networks[NETWORK], batches), settings.k, generator, iterations=settings.iterations)
    return noise_record(networks[NETWORK], batches, spectrum, settings)


def noise_record(network: nn.Module, batches: Batches, spectrum: Spectrum, settings: NoiseSettings) -> Record:
    """The record of `noise` for a spectrum of the network's Hessian that is there already."""
    variances = gradient_variances(network, batches, spectrum.vectors, chunk=settings.chunk)
    curvature = (spectrum.values / settings.batch_size).tolist()
    measured = (variances / settings.batch_size).tolist()
    return {"curvature": curvature, "noise": measured, **fit_line(curvature, measured)._asdict()}


def gradient_variances(network: nn.Module, batches: Batches, vectors: Tensor, *, loss: Loss = cross_entropy, chunk: int = 16) -> Tensor:
    """The variance over images of v_i . (gradient of one image's loss), (k,) float64, for the rows v_i of `vectors` (k, d).

    Divided by B it is v_i' C v_i with C the covariance of the gradient of B images drawn independently. The network is in eval
    mode. Memory: `chunk` times the parameters. Raises SpecError with fewer than two images and
    for vectors of another length.
    """
    if sum(len(images) for images, _ in batches) < 2:
        raise not_allowed("batches", sum(len(images) for images, _ in batches), "at least 2 images")
    runner = copied(network).eval()
    params = {name: param.detach() for name, param in runner.named_parameters()}
    buffers = dict(runner.named_buffers())
    sizes = [param.numel() for param in params.values()]
    if vectors.shape[1:] != (sum(sizes),):
        raise not_allowed("vectors", tuple(vectors.shape), f"rows of {sum(sizes)} numbers, one for each parameter")

    def single(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return loss(logits_of(functional_call(runner, {**weights, **buffers}, (image[None],))), label[None])

    gradients = vmap(grad(single), in_dims=(None, 0, 0))
    parts = []
    for images, labels in batches:
        for some, theirs in zip(images.split(chunk), labels.split(chunk), strict=True):
            slopes = gradients(params, some, theirs).values()
            projected = [slope.flatten(1) @ rows.T for slope, rows in zip(slopes, vectors.split(sizes, dim=1), strict=True)]
            parts.append(torch.stack(projected).double().sum(0))
    return torch.cat(parts).var(0)


def noise_scale(lr: float, batch_size: int) -> float:
    """lr / B: what the temperature of SGD is proportional to. Raises SpecError for values that are not above 0."""
    _check_positive(lr=lr, batch_size=batch_size)
    return lr / batch_size


def fit_line(xs: Sequence[float], ys: Sequence[float]) -> Fit:
    """Least squares through at least two points. Raises SpecError when all x are the same."""
    x, y = torch.tensor(xs, dtype=torch.float64), torch.tensor(ys, dtype=torch.float64)
    if len(xs) != len(ys) or len(set(xs)) < 2:
        raise not_allowed("x", list(xs), f"{len(ys)} numbers that are not all the same")
    dx, dy = x - x.mean(), y - y.mean()
    slope = float((dx * dy).sum() / dx.square().sum())
    whole, left = float(dy.square().sum()), float((dy - slope * dx).square().sum())
    return Fit(slope, float(y.mean() - slope * x.mean()), 1.0 - left / whole if whole else 1.0)


def sgd_escape_time(
    *, batch_size: float, lr: float, barrier: float, well: float, saddle: float, share: float = 0.5, log: bool = False
) -> float:
    """tau = 2 pi / |H_b| exp[(2 B dL / lr) (s / H_a + (1 - s) / |H_b|)] in units of lr times steps; `log` gives its logarithm.

    `well` is H_a and `saddle` |H_b|, along the way out; `share` s in (0, 1) is the part of the barrier that is climbed under
    the noise of the well. Raises SpecError for values that are not above 0 and a share outside (0, 1).
    """
    _check_positive(batch_size=batch_size, lr=lr, barrier=barrier, well=well, saddle=saddle)
    _check_share(share)
    exponent = 2 * batch_size * barrier / lr * (share / well + (1 - share) / saddle)
    value = math.log(2 * math.pi / saddle) + exponent
    return value if log else math.exp(value)


def escape_scaling(escapes: Sequence[Escape], generator: torch.Generator, *, walkers: int = 1500, share: float = 0.5) -> Record:
    """Simulated against predicted escape times: a straight line of slope 1 whatever is varied, batch size, lr or sharpness.

    `tau` and `predicted` per entry; `slope`, `intercept` and `r2` of log tau against log predicted. The walk ends at the saddle,
    from where only every second one would go on, and steps are finite: so the intercept is below 0, and only the slope is tested.
    """
    measured = [simulated_escape_time(one, generator, walkers=walkers, share=share) for one in escapes]
    predicted = [
        sgd_escape_time(
            batch_size=one.batch_size, lr=one.lr, barrier=BARRIER, well=2 * one.sharpness, saddle=one.sharpness, share=share, log=True
        )
        for one in escapes
    ]
    line = fit_line(predicted, [math.log(tau) for tau in measured])
    return {"tau": measured, "predicted": [math.exp(value) for value in predicted], **line._asdict()}


@torch.no_grad()
def simulated_escape_time(
    escape: Escape, generator: torch.Generator, *, walkers: int = 1500, share: float = 0.5, most_steps: int = 100_000
) -> float:
    """Mean time, in lr times steps, of SGD from a minimum of the double well to its saddle.

    The noise of a step has the variance lr^2 H / B, with the curvature H of the well below `share` of the barrier and that of the
    saddle above it: the assumption of the closed form (|L''| itself is zero in between, and nothing would pass). Walkers run
    until half of them are out; time of all / escapes is then the estimate for times with an exponential law.

    Raises SpecError when that takes more than `most_steps`, for fewer than 2 walkers and a share outside (0, 1).
    """
    _check_share(share)
    if walkers < 2:
        raise not_allowed("walkers", walkers, ">= 2")
    batch_size, lr, sharpness = escape.batch_size, escape.lr, escape.sharpness
    width = sharpness**-0.5
    divide = width * math.sqrt(1 - math.sqrt(share))
    kick = [lr * math.sqrt(curvature / batch_size) for curvature in (sharpness, 2 * sharpness)]
    w = torch.full((walkers,), width, dtype=torch.float64)
    at_risk, stay = 0, walkers - walkers // 2
    for _ in range(most_steps):
        drawn = torch.randn(len(w), generator=generator, dtype=torch.float64)
        slope = sharpness * w * (sharpness * w * w - 1)
        at_risk += len(w)
        w = w - lr * slope + torch.where(w > divide, kick[1], kick[0]) * drawn
        w = w[w > 0]
        if len(w) <= stay:
            return lr * at_risk / (walkers - len(w))
    raise not_allowed("escape", to_plain(escape), f"a setting in which half of the walkers escape within {most_steps} steps")


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise not_allowed(name, value, "> 0")


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise not_allowed("share", share, "> 0 and < 1")
