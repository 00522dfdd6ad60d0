"""The largest eigenvalues of the Hessian of the loss, their directions, and how much of a displacement lies in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from autosparse.models.errors import not_allowed
from autosparse.models.gradients import Batches, Loss
from autosparse.models.masks.reparametrized import copied
from autosparse.models.networks.calls import logits_of
from autosparse.models.probes.contract import NETWORK, OTHER, Record, finite
from autosparse.models.probes.vectors import displacement, flatten, unflatten
from autosparse.models.specs.run_specs import Count, Spec


@dataclass(frozen=True, kw_only=True, slots=True)
class HessianSettings(Spec):
    """The `k` largest eigenvalues out of `iterations` of Lanczos (None: `default_iterations`)."""

    k: Count = 10
    iterations: Count | None = None


class LinearOperator(Protocol):
    """A symmetric matrix (dim, dim) known by its products; vectors are of `dtype` on `device`."""

    dim: int
    dtype: torch.dtype
    device: torch.device

    def matvec(self, vector: Tensor) -> Tensor: ...


class Spectrum(NamedTuple):
    """`values` (k,) float64, falling; `vectors` (k, d), orthonormal rows; `residuals` (k,) float64.

    A residual is ||H v - value v|| as Lanczos knows it without further products; it is not below the rounding of the dtype.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor


def hessian(networks: Mapping[str, nn.Module], batches: Batches, generator: torch.Generator, settings: HessianSettings) -> Record:
    """`eigenvalues` and `residuals` of the Hessian at `network` and, with an `other`, the displacement between the two:

    its length `distance`, its share in the top-k directions `share`, and `share_random` = k/d, the mean share of random directions.
    The displacement means something only for two networks that started from the same weights and saw the same batches in the same
    order (arXiv 2006.09358; share of displacement also in arXiv 2002.03495).
    """
    operator = HessianOperator(networks[NETWORK], batches)
    moved = displacement(networks[NETWORK], networks[OTHER]) if OTHER in networks else None
    return spectrum_record(lanczos(operator, settings.k, generator, iterations=settings.iterations), moved)


def spectrum_record(spectrum: Spectrum, moved: Tensor | None) -> Record:
    """The record of `hessian` for a spectrum that is there already and a displacement (d,) in float64."""
    record: Record = {"eigenvalues": spectrum.values.tolist(), "residuals": spectrum.residuals.tolist()}
    if moved is not None:
        shares = {"share": share(spectrum.vectors, moved), "share_random": len(spectrum.vectors) / moved.numel()}
        record |= {"distance": float(moved.norm()), **shares}
    return record


class HessianOperator:
    """The Hessian of the mean loss over all images of `batches`, with respect to all parameters, at the network's weights.

    A copy of the network is taken; it is in eval mode, so BatchNorm uses its running statistics as constants and dropout is off.
    Batches come in their order and without augmentation. So the operator is one fixed symmetric matrix: on a CPU two products
    with a vector are the same bits. The public code of arXiv 2006.09358 differs: there the network is in train mode, and images
    are shuffled and cropped at random for every product, which gives a noisy operator and moves the statistics.

    Raises SpecError without a batch.
    """

    def __init__(self, network: nn.Module, batches: Batches, *, loss: Loss = cross_entropy) -> None:
        if not batches:
            raise not_allowed("batches", 0, ">= 1")
        self._network, self._batches, self._loss = copied(network).eval(), batches, loss
        self._images = sum(len(images) for images, _ in batches)
        point = flatten(network)
        self.dim, self.dtype, self.device = point.numel(), point.dtype, point.device

    def matvec(self, vector: Tensor) -> Tensor:
        """H v by double backward, one batch's graph in memory at a time (Pearlmutter 1994); (d,) to (d,), of the weights' dtype."""
        directions = unflatten(vector.to(self.dtype), self._network)
        leaves = {name: param.detach().requires_grad_() for name, param in self._network.named_parameters()}
        total = torch.zeros(self.dim, dtype=self.dtype, device=self.device)
        for images, labels in self._batches:
            with torch.enable_grad():
                value = self._loss(logits_of(functional_call(self._network, leaves, (images,))), labels)
                slopes = torch.autograd.grad(value, list(leaves.values()), create_graph=True, materialize_grads=True)
                slope = torch.stack([(slope * directions[name]).sum() for name, slope in zip(leaves, slopes, strict=True)]).sum()
            # A loss that is linear in the weights has slopes without a graph, and no curvature.
            if slope.requires_grad:
                products = torch.autograd.grad(slope, list(leaves.values()), materialize_grads=True)
                total += torch.cat([product.reshape(-1) for product in products]) * (len(images) / self._images)
        return total


def default_iterations(k: int, dim: int) -> int:
    """2 k + 20: plenty where few eigenvalues stand out; the residuals tell."""
    return min(dim, 2 * k + 20)


@torch.no_grad()
def lanczos(operator: LinearOperator, k: int, generator: torch.Generator, *, iterations: int | None = None) -> Spectrum:
    """The `k` algebraically largest eigenvalues and their vectors after `iterations` products (Lanczos 1950).

    Every new vector is made orthogonal to all earlier ones, so no copies of an eigenvalue appear, and where the space of the start
    vector is used up, a new random one goes on: with `iterations` = dim the result is complete. An eigenvalue that is there twice
    may be found once before that. Memory: `iterations` vectors of the operator's dtype. `generator` draws the start.

    Raises SpecError for k outside 1..dim or iterations outside k..dim, DivergedError for a product that is NaN or infinite.
    """
    if not 1 <= k <= operator.dim:
        raise not_allowed("k", k, f">= 1 and <= {operator.dim}, the number of parameters")
    count = default_iterations(k, operator.dim) if iterations is None else iterations
    if not k <= count <= operator.dim:
        raise not_allowed("iterations", count, f">= k = {k} and <= {operator.dim}, the number of parameters")
    basis = torch.zeros((count, operator.dim), dtype=operator.dtype, device=operator.device)
    tridiagonal = torch.zeros((count, count), dtype=torch.float64)
    basis[0] = _fresh(basis[:0], generator)
    beta, scale = 0.0, 0.0
    for index in range(count):
        product = operator.matvec(basis[index])
        alpha = finite("hessian.product", float(_dot(basis[index], product)), f"at iteration {index}")
        tridiagonal[index, index] = alpha
        known = basis[: index + 1]
        rest = product - known.T @ (known @ product)
        beta = float(torch.linalg.vector_norm(rest, dtype=torch.float64))
        scale = max(scale, abs(alpha), beta)
        if index + 1 < count:
            used_up = beta <= 10 * torch.finfo(operator.dtype).eps * scale
            beta = 0.0 if used_up else beta
            basis[index + 1] = _fresh(known, generator) if used_up else _unit_beside(rest, known)
            tridiagonal[index, index + 1] = tridiagonal[index + 1, index] = beta
    values, rotation = torch.linalg.eigh(tridiagonal)
    top = torch.arange(count - 1, count - 1 - k, -1)
    vectors = rotation[:, top].T.to(basis) @ basis
    rounding = torch.finfo(operator.dtype).eps * float(values.abs().max())
    return Spectrum(values[top], vectors, (beta * rotation[-1, top].abs()).clamp(min=rounding))


@torch.no_grad()
def share(vectors: Tensor, moved: Tensor) -> float:
    """sum_i (v_i . m)^2 / ||m||^2 in [0, 1], of orthonormal rows `vectors` (k, d) and a displacement `moved` (d,), in float64.

    Raises SpecError when the lengths differ or nothing moved.
    """
    if moved.shape != vectors.shape[1:]:
        raise not_allowed("displacement", tuple(moved.shape), f"the shape {tuple(vectors.shape[1:])}")
    moved = moved.double()
    whole = float(moved.square().sum())
    if whole == 0.0:
        raise not_allowed("displacement", 0.0, "two networks that differ")
    return sum(float(vector.double() @ moved) ** 2 for vector in vectors) / whole


def _fresh(basis: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(basis.shape[1], generator=generator, device=generator.device, dtype=torch.float64)
    return _unit_beside(drawn.to(basis), basis)


def _unit_beside(vector: Tensor, basis: Tensor) -> Tensor:
    """The direction of `vector` outside the rows of `basis`: twice, because a small remainder is not orthogonal after once."""
    for _ in range(2):
        vector = vector - basis.T @ (basis @ vector)
        vector = vector / torch.linalg.vector_norm(vector)
    return vector


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(dtype=torch.float64)
