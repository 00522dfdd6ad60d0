"""Hessian products and their largest eigenvalues: against X'X/n, and against the dense Hessian in float64."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from autosparse.models import seeding
from autosparse.models.errors import DivergedError, SpecError
from autosparse.models.probes.hessian import HessianOperator, HessianSettings, default_iterations, hessian, lanczos, share
from autosparse.models.probes.vectors import flatten, unflatten


def half_square(outputs: Tensor, labels: Tensor) -> Tensor:
    return ((outputs.squeeze(1) - labels) ** 2).mean() / 2


class Matrix:
    """A dense symmetric matrix as an operator."""

    def __init__(self, entries: Tensor) -> None:
        self.entries, self.dim, self.dtype, self.device = entries, len(entries), entries.dtype, entries.device

    def matvec(self, vector: Tensor) -> Tensor:
        return self.entries @ vector


def regression(n: int = 50, d: int = 7) -> tuple[nn.Module, Tensor, Tensor]:
    stream = seeding.generator(0, "regression")
    x = torch.randn(n, d, generator=stream, dtype=torch.float64)
    return nn.Linear(d, 1, bias=False).double(), x, torch.randn(n, generator=stream, dtype=torch.float64)


@pytest.mark.parametrize("sizes", [[50], [20, 20, 10]])
def test_linear_regression_has_the_eigenvalues_of_its_second_moments(sizes: list[int]):
    network, x, y = regression()
    operator = HessianOperator(network, list(zip(x.split(sizes), y.split(sizes), strict=True)), loss=half_square)
    spectrum = lanczos(operator, 7, seeding.generator(1), iterations=7)
    values, vectors = torch.linalg.eigh(x.T @ x / 50)
    assert torch.allclose(spectrum.values, values.flip(0), rtol=1e-13, atol=0)
    assert torch.allclose((spectrum.vectors @ vectors.flip(1)).abs(), torch.eye(7, dtype=torch.float64), atol=1e-10)
    assert spectrum.residuals.max() < 1e-12


def small() -> tuple[nn.Sequential, list[tuple[Tensor, Tensor]]]:
    """84 parameters, running statistics that are not 0 and 1, batches of different sizes, float64."""
    with seeding.scoped(0, "test"):
        network = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(12, 3), nn.Tanh(), nn.Linear(3, 2)
        ).double()
    stream = torch.Generator().manual_seed(3)
    images = [torch.randn(size, 1, 4, 4, generator=stream, dtype=torch.float64) for size in (8, 5)]
    network(3 * images[0] + 1)
    return network.train(), [(image, torch.randint(0, 2, (len(image),), generator=stream)) for image in images]


def dense_hessian(network: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    fixed = copy.deepcopy(network).eval()

    def loss(vector: Tensor) -> Tensor:
        return cross_entropy(functional_call(fixed, unflatten(vector, fixed), (images,)), labels)

    found = torch.autograd.functional.hessian(loss, flatten(network))
    assert isinstance(found, Tensor)
    return found


def test_products_and_spectrum_of_a_network_against_the_dense_hessian():
    network, batches = small()
    whole, operator = dense_hessian(network, batches), HessianOperator(network, batches)
    probe = torch.randn(operator.dim, generator=seeding.generator(2), dtype=torch.float64)
    assert torch.allclose(operator.matvec(probe), whole @ probe, rtol=1e-10, atol=1e-13)
    values, vectors = torch.linalg.eigh(whole)
    assert values[0] < 0 < values[-5]  # the largest are asked for, not the largest in size
    spectrum = lanczos(operator, 5, seeding.generator(1), iterations=40)
    assert torch.allclose(spectrum.values, values.flip(0)[:5], rtol=1e-9)
    assert torch.allclose((spectrum.vectors * vectors.flip(1)[:, :5].T).sum(1).abs(), torch.ones(5, dtype=torch.float64), atol=1e-6)


def test_residuals_are_those_of_the_pairs():
    network, batches = small()
    whole = dense_hessian(network, batches)
    spectrum = lanczos(HessianOperator(network, batches), 4, seeding.generator(1), iterations=8)
    residuals = (spectrum.vectors @ whole - spectrum.values[:, None] * spectrum.vectors).norm(dim=1)
    assert residuals.max() > 1e-4  # few iterations: they have not converged
    assert torch.allclose(spectrum.residuals, residuals, rtol=1e-6)


def test_the_operator_is_the_same_bits_twice_and_leaves_no_trace():
    network, batches = small()
    network.float()
    batches = [(images.float(), labels) for images, labels in batches]
    network[1].eval()
    before, state = copy.deepcopy(network.state_dict()), torch.random.get_rng_state()
    operator = HessianOperator(network, batches)
    probe = torch.randn(operator.dim, generator=seeding.generator(2))
    assert torch.equal(operator.matvec(probe), operator.matvec(probe))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [module.training for module in network] == [True, False, True, True, True, True, True, True]
    assert all(param.grad is None for param in network.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_linear_loss_has_no_curvature():
    operator = HessianOperator(nn.Linear(3, 1), [(torch.ones(2, 3), torch.zeros(2))], loss=lambda outputs, labels: outputs.mean())
    assert operator.matvec(torch.ones(4)).tolist() == [0.0] * 4


def test_eigenvalues_that_are_there_twice_are_found_when_all_iterations_are_done():
    entries = torch.diag(torch.tensor([5.0, 5.0, 1.0, 1.0, 1.0, 0.0], dtype=torch.float64))
    spectrum = lanczos(Matrix(entries), 6, seeding.generator(1), iterations=6)
    assert torch.allclose(spectrum.values, entries.diagonal(), atol=1e-12)
    assert torch.allclose(spectrum.vectors @ spectrum.vectors.T, torch.eye(6, dtype=torch.float64), atol=1e-12)


def test_a_matrix_of_zeros_has_orthonormal_vectors_too():
    spectrum = lanczos(Matrix(torch.zeros(4, 4)), 3, seeding.generator(1))
    assert spectrum.values.tolist() == [0.0] * 3 == spectrum.residuals.tolist()
    assert torch.allclose(spectrum.vectors @ spectrum.vectors.T, torch.eye(3), atol=1e-6)


def test_residuals_are_not_below_the_rounding_of_the_products():
    spectrum = lanczos(Matrix(torch.diag(torch.tensor([4.0, 2.0, 1.0]))), 1, seeding.generator(1), iterations=3)
    assert spectrum.residuals.item() >= 4 * torch.finfo(torch.float32).eps * 0.99


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_matrix_of_low_rank_keeps_orthonormal_vectors(dtype: torch.dtype):
    stream = seeding.generator(0)
    factor = torch.randn(200, 3, generator=stream, dtype=torch.float64)
    entries = (factor @ factor.T).to(dtype)
    spectrum = lanczos(Matrix(entries), 8, seeding.generator(1), iterations=60)
    expected = torch.linalg.eigvalsh(factor.T @ factor).flip(0)
    precision = 100 * torch.finfo(dtype).eps
    assert torch.allclose(spectrum.values[:3], expected, rtol=precision)
    assert spectrum.values[3:].abs().max() < precision * expected[0]
    assert torch.allclose(spectrum.vectors @ spectrum.vectors.T, torch.eye(8, dtype=dtype), atol=precision)


def test_the_generator_decides_the_start_alone():
    network, batches = small()
    first, again = (lanczos(HessianOperator(network, batches), 3, seeding.generator(1), iterations=6) for _ in range(2))
    other = lanczos(HessianOperator(network, batches), 3, seeding.generator(2), iterations=6)
    assert torch.equal(first.vectors, again.vectors)
    assert not torch.equal(first.values, other.values)


def test_iterations_by_default():
    assert default_iterations(10, 10**6) == 40
    assert default_iterations(10, 30) == 30


@pytest.mark.parametrize(
    ("k", "iterations", "said"),
    [
        (0, None, "k: 0 is not allowed; allowed: >= 1 and <= 6"),
        (7, None, "k: 7 is not allowed; allowed: >= 1 and <= 6"),
        (3, 2, "iterations: 2 is not allowed; allowed: >= k = 3 and <= 6"),
        (3, 7, "iterations: 7 is not allowed"),
    ],
)
def test_more_than_there_is_is_refused(k: int, iterations: int | None, said: str):
    with pytest.raises(SpecError, match=said):
        lanczos(Matrix(torch.eye(6)), k, seeding.generator(0), iterations=iterations)


def test_a_product_that_is_nan_ends_it():
    with pytest.raises(DivergedError, match="hessian.product: nan at iteration 0 is not allowed; allowed: finite"):
        lanczos(Matrix(torch.full((3, 3), float("nan"))), 1, seeding.generator(0))


def test_no_batch_is_refused():
    with pytest.raises(SpecError, match="batches: 0 is not allowed; allowed: >= 1"):
        HessianOperator(nn.Linear(1, 1), [])


def test_share_of_a_displacement():
    stream = seeding.generator(0, "share")
    axes = torch.linalg.qr(torch.randn(400, 20, generator=stream)).Q.T
    inside, outside = axes[:10].T @ torch.arange(1.0, 11.0), axes[10:].T @ torch.arange(1.0, 11.0)
    assert share(axes[:10], inside) == pytest.approx(1.0, abs=1e-6)
    assert share(axes[:10], outside) == pytest.approx(0.0, abs=1e-12)
    assert share(axes[:10], 3 * inside + 4 * outside) == pytest.approx(9 / 25, abs=1e-6)
    # a random direction: mean k/d = .025, standard deviation about sqrt(2 k) / d = .011 for one, .0008 for the mean of 200
    found = [share(axes[:10], torch.randn(400, generator=stream)) for _ in range(200)]
    assert sum(found) / 200 == pytest.approx(10 / 400, abs=4 * 0.0008)


def test_no_displacement_and_one_of_another_length_are_refused():
    with pytest.raises(SpecError, match="two networks that differ"):
        share(torch.eye(3), torch.zeros(3))
    with pytest.raises(SpecError, match=r"displacement: \(4,\) is not allowed; allowed: the shape \(3,\)"):
        share(torch.eye(3), torch.ones(4))


def test_the_record_of_a_network_moved_along_an_eigenvector():
    network, batches = small()
    values, vectors = torch.linalg.eigh(dense_hessian(network, batches))
    other = copy.deepcopy(network)
    with torch.no_grad():
        moved = unflatten(flatten(network) + 0.5 * vectors[:, -2], network)
        for name, param in other.named_parameters():
            param.copy_(moved[name])
    record = hessian({"network": network, "other": other}, batches, seeding.generator(0), HessianSettings(k=3, iterations=50))
    assert record["eigenvalues"] == pytest.approx(values.flip(0)[:3].tolist(), rel=1e-9)
    assert record["share"] == pytest.approx(1.0, abs=1e-9)
    assert record["distance"] == pytest.approx(0.5)
    assert record["share_random"] == 3 / len(values)
    assert "share" not in hessian({"network": network}, batches, seeding.generator(0), HessianSettings(k=3))
