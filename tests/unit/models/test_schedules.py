"""The density schedule, as a table."""

from itertools import pairwise

import pytest

from autosparse.models.schedules import density_after, density_before


def test_two_rounds_to_a_quarter():
    assert [density_before(index, 2, 0.25) for index in range(2)] == [1.0, 0.5]
    assert [density_after(index, 2, 0.25) for index in range(2)] == [0.5, 0.25]


def test_ten_rounds_to_two_percent():
    before = [round(density_before(index, 10, 0.02), 3) for index in range(10)]
    assert before == [1.0, 0.676, 0.457, 0.309, 0.209, 0.141, 0.096, 0.065, 0.044, 0.03]


@pytest.mark.parametrize("rounds", [1, 2, 3, 7, 10, 20, 100, 200])
@pytest.mark.parametrize("final_density", [0.9, 0.5, 0.1, 0.03, 0.02, 0.01, 1e-4])
def test_strictly_falling_from_one_to_exactly_the_final_density(rounds: int, final_density: float):
    densities = [density_before(0, rounds, final_density), *(density_after(index, rounds, final_density) for index in range(rounds))]
    assert densities[0] == 1.0
    assert densities[-1] == final_density
    assert all(after < before for before, after in pairwise(densities))
    assert [density_before(index + 1, rounds, final_density) for index in range(rounds)] == densities[1:]
