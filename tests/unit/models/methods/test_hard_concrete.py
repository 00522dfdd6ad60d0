"""The hard concrete distribution against samples and numbers on paper."""

import math

import pytest
import torch

from autosparse.models.methods import hard_concrete
from autosparse.models.methods.hard_concrete import logit_at, median, noise, open_probability, sample

LOGITS = (-4.0, -1.6, -0.5, 0.0, 1.0, 3.0)


@pytest.mark.parametrize("logit", LOGITS)
def test_open_probability_and_median_are_those_of_400_000_samples(logit: float) -> None:
    gates = sample(torch.tensor(logit), noise(400_000, torch.Generator().manual_seed(0)))
    assert float((gates > 0).float().mean()) == pytest.approx(float(open_probability(torch.tensor(logit))), abs=0.003)
    assert float(gates.median()) == pytest.approx(float(median(torch.tensor(logit))), abs=0.005)
    assert float(gates.min()) >= 0
    assert float(gates.max()) <= 1


def test_the_median_gate_is_zero_up_to_minus_1_599_and_one_from_1_599_on() -> None:
    gates = median(torch.tensor([-20.0, -1.599, -1.598, 0.0, 1.598, 1.599, 20.0], dtype=torch.float64)).tolist()
    assert gates[:2] == [0, 0]
    assert 0 < gates[2] < 0.001
    assert gates[3] == pytest.approx(0.5)
    assert 0.999 < gates[4] < 1
    assert gates[5:] == [1, 1]


def test_a_logit_of_log_0_01_leaves_a_gate_open_with_probability_0_0471() -> None:
    assert float(open_probability(torch.tensor(math.log(0.01)))) == pytest.approx(0.0471, abs=5e-5)


def test_a_gate_at_minus_2_398_is_open_with_probability_0_31() -> None:
    assert float(open_probability(torch.tensor(-2.398))) == pytest.approx(0.31, abs=0.001)


@pytest.mark.parametrize("probability", [0.001, 0.0471, 0.5, 0.9])
def test_a_probability_and_its_logit(probability: float) -> None:
    assert float(open_probability(torch.tensor(logit_at(probability), dtype=torch.float64))) == pytest.approx(probability)


def test_the_slope_in_the_middle_is_0_45_and_outside_nothing() -> None:
    logits = torch.tensor([0.0, -5.0, 5.0], requires_grad=True)
    median(logits).sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx([1.2 * 0.25 / (2 / 3), 0, 0])


def test_noise_is_logistic_bounded_and_of_its_generator() -> None:
    drawn = noise(200_000, torch.Generator().manual_seed(1))
    assert float(drawn.abs().max()) <= math.log((1 - 1e-6) / 1e-6) + 1e-4
    assert float(drawn.mean()) == pytest.approx(0, abs=0.02)
    assert float(drawn.var()) == pytest.approx(math.pi**2 / 3, abs=0.05)
    assert torch.equal(drawn, noise(200_000, torch.Generator().manual_seed(1)))
    assert round(hard_concrete.SHIFT, 4) == -1.5986
