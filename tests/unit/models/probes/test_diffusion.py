"""Noise against curvature, and escape times: linear regression and a double well, where both are known."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from autosparse.models import seeding
from autosparse.models.errors import SpecError
from autosparse.models.probes.diffusion import (
    Escape,
    NoiseSettings,
    escape_scaling,
    fit_line,
    gradient_variances,
    noise,
    noise_scale,
    sgd_escape_time,
    simulated_escape_time,
)
from autosparse.models.probes.hessian import HessianOperator, lanczos

LR, SIZES = 0.05, (0.30, 0.45, 0.60, 0.75)


def half_square(outputs: Tensor, labels: Tensor) -> Tensor:
    return ((outputs.squeeze(1) - labels) ** 2).mean() / 2


@pytest.mark.parametrize("sigma", [1.0, 0.5])
def test_noise_of_linear_regression_is_its_curvature_times_the_residual_variance(sigma: float):
    n, d = 20000, 6
    stream = seeding.generator(0, "regression")
    x = torch.randn(n, d, generator=stream, dtype=torch.float64) * torch.tensor([3.0, 2.5, 2.0, 1.5, 1.0, 0.5])
    truth = torch.randn(d, generator=stream, dtype=torch.float64)
    y = x @ truth + sigma * torch.randn(n, generator=stream, dtype=torch.float64)
    network = nn.Linear(d, 1, bias=False).double()
    with torch.no_grad():
        network.weight.copy_(torch.linalg.lstsq(x, y[:, None]).solution.T)
    batches = list(zip(x.split(7000), y.split(7000), strict=True))
    spectrum = lanczos(HessianOperator(network, batches, loss=half_square), d, seeding.generator(1))
    variances = gradient_variances(network, batches, spectrum.vectors, loss=half_square, chunk=4000)
    fit = fit_line(spectrum.values.tolist(), variances.tolist())
    # the variance of a product of squares: each is off by about sqrt(8 / n) = 2 %
    assert fit.slope == pytest.approx(sigma**2, rel=0.06)
    assert fit.r2 > 0.99


def small() -> tuple[nn.Sequential, list[tuple[Tensor, Tensor]]]:
    with seeding.scoped(0, "test"):
        network = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3, 2)
        ).double()
    stream = torch.Generator().manual_seed(3)
    images = [torch.randn(size, 1, 6, 6, generator=stream, dtype=torch.float64) for size in (5, 4)]
    return network.train(), [(image[..., :4, :4], torch.randint(0, 2, (len(image),), generator=stream)) for image in images]


def test_variances_against_gradients_image_by_image():
    network, batches = small()
    found = gradient_variances(network, batches, torch.eye(44, dtype=torch.float64)[[0, 30, 35, 43]], chunk=3)
    network.eval()
    rows = []
    for images, labels in batches:
        for image, label in zip(images, labels, strict=True):
            loss = cross_entropy(network(image[None]), label[None])
            slopes = torch.autograd.grad(loss, list(network.parameters()))
            rows.append(torch.cat([slope.reshape(-1) for slope in slopes])[[0, 30, 35, 43]])
    by_hand = torch.stack(rows)
    assert torch.allclose(found, ((by_hand - by_hand.mean(0)) ** 2).sum(0) / 8, rtol=1e-10)
    assert found.min() > 0


def test_batch_size_divides_both_sides():
    network, batches = small()
    one, many = (noise({"network": network}, batches, seeding.generator(0), NoiseSettings(k=3, batch_size=size)) for size in (1, 100))
    assert one["slope"] == pytest.approx(many["slope"], rel=1e-9)
    assert one["noise"] == pytest.approx([100 * value for value in many["noise"]], rel=1e-9)
    assert one["curvature"] == pytest.approx([100 * value for value in many["curvature"]], rel=1e-9)


def test_the_line_on_paper():
    assert fit_line([0.0, 1.0, 2.0], [1.0, 3.0, 5.0]) == (2.0, 1.0, 1.0)
    # residuals 1/6, -1/3, 1/6 of deviations -4/3, -1/3, 5/3
    fit = fit_line([0.0, 1.0, 2.0], [0.0, 1.0, 3.0])
    assert (fit.slope, fit.intercept) == (pytest.approx(1.5), pytest.approx(-1 / 6))
    assert fit.r2 == pytest.approx(1 - (1 / 6) / (14 / 3))
    assert fit_line([0.0, 1.0], [2.0, 2.0]) == (0.0, 2.0, 1.0)


def test_one_place_has_no_line():
    with pytest.raises(SpecError, match=r"x: \[1.0, 1.0\] is not allowed; allowed: 2 numbers that are not all the same"):
        fit_line([1.0, 1.0], [0.0, 1.0])


def test_fewer_than_two_images_are_refused():
    network, batches = small()
    with pytest.raises(SpecError, match="batches: 1 is not allowed; allowed: at least 2 images"):
        gradient_variances(network, [(batches[0][0][:1], batches[0][1][:1])], torch.zeros(1, 44))


def test_vectors_of_another_length_are_refused():
    network, batches = small()
    with pytest.raises(SpecError, match=r"vectors: \(1, 41\) is not allowed; allowed: rows of 44 numbers"):
        gradient_variances(network, batches, torch.zeros(1, 41))


def test_closed_forms_on_paper():
    # exponent 2 * .3 * .25 / .05 * (1/4 + 1/2) = 2.25
    settings = {"batch_size": 0.3, "lr": LR, "barrier": 0.25, "well": 2.0, "saddle": 1.0}
    assert sgd_escape_time(**settings) == pytest.approx(2 * math.pi * math.exp(2.25))
    assert sgd_escape_time(**settings, share=0.8) == pytest.approx(2 * math.pi * math.exp(3 * (0.4 + 0.2)))
    assert sgd_escape_time(**settings, log=True) == pytest.approx(math.log(2 * math.pi) + 2.25)
    assert sgd_escape_time(**{**settings, "saddle": 4.0}) == pytest.approx(math.pi / 2 * math.exp(3 * (0.25 + 0.125)))


def test_escape_times_grow_with_the_batch_as_predicted():
    stream = seeding.generator(0, "walk")
    times = [simulated_escape_time(Escape(batch_size=size, lr=LR), stream) for size in SIZES]
    assert times == sorted(times)
    assert times == pytest.approx([19, 57, 169, 470], rel=0.15)  # measured before, with other random numbers
    fit = fit_line(SIZES, [math.log(time) for time in times])
    assert fit.slope == pytest.approx(7.50, rel=0.25)
    assert fit.r2 > 0.99


@pytest.mark.parametrize(("share", "slope"), [(0.2, 9.0), (0.8, 6.0)])
def test_the_noise_of_the_well_acts_on_its_share_of_the_barrier(share: float, slope: float):
    # 10 B (share / 2 + 1 - share)
    stream = seeding.generator(0, "walk")
    times = [simulated_escape_time(Escape(batch_size=size, lr=LR), stream, share=share) for size in SIZES[:3]]
    assert fit_line(SIZES[:3], [math.log(time) for time in times]).slope == pytest.approx(slope, rel=0.2)


@pytest.mark.parametrize(
    "escapes",
    [
        [Escape(batch_size=0.45, lr=lr) for lr in (0.1, 0.05, 0.0375)],
        [Escape(batch_size=0.6, lr=LR, sharpness=h) for h in (2.0, 1.5, 1.0)],
    ],
    ids=["lr", "sharpness"],
)
def test_escape_times_follow_learning_rate_and_sharpness(escapes: list[Escape]):
    record = escape_scaling(escapes, seeding.generator(0, "walk"))
    assert record["slope"] == pytest.approx(1.0, rel=0.25)
    assert record["r2"] > 0.98
    assert record["tau"] == sorted(record["tau"])


def test_walks_are_the_generators():
    first, again, other = (simulated_escape_time(Escape(batch_size=0.3, lr=LR), seeding.generator(seed), walkers=50) for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("field", ["batch_size", "lr", "sharpness"])
def test_an_escape_at_zero_is_refused(field: str):
    with pytest.raises(SpecError, match=f"{field}: 0.0 is not allowed; allowed: > 0"):
        Escape(**{"batch_size": 1.0, "lr": 1.0, field: 0.0})


def test_bad_numbers_are_refused():
    with pytest.raises(SpecError, match="share: 1.5 is not allowed; allowed: > 0 and < 1"):
        simulated_escape_time(Escape(batch_size=0.3, lr=LR), seeding.generator(0), share=1.5)
    with pytest.raises(SpecError, match="walkers: 1 is not allowed"):
        simulated_escape_time(Escape(batch_size=0.3, lr=LR), seeding.generator(0), walkers=1)
    with pytest.raises(SpecError, match="half of the walkers escape within 100 steps"):
        simulated_escape_time(Escape(batch_size=10.0, lr=LR), seeding.generator(0), most_steps=100)
    with pytest.raises(SpecError, match="well: -1.0 is not allowed; allowed: > 0"):
        sgd_escape_time(batch_size=1.0, lr=1.0, barrier=1.0, well=-1.0, saddle=1.0)


def test_noise_scale():
    assert noise_scale(0.1, 128) == 0.1 / 128
    with pytest.raises(SpecError, match="batch_size: 0 is not allowed; allowed: > 0"):
        noise_scale(0.1, 0)
