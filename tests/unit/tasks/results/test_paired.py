"""The paired t-test on paper, and what is said where n is too small for it."""

import math

import pytest

from autosparse.tasks.results.arm_reports import opened
from autosparse.tasks.results.paired import Paired, cells, control_rows, control_table, paired


def seeds(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_three_pairs_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, std 1, t = 2 sqrt(3) = 3.4641 with 2 degrees of freedom.

    There the distribution is known in closed form: P(T > t) = 1/2 - t / (2 sqrt(2 + t^2)), so p = 1 - sqrt(12 / 14), and the
    97.5 % point solves t / sqrt(2 + t^2) = .95: t = .95 sqrt(2 / (1 - .95^2)) = 4.30265.
    """
    found = paired(seeds(5, 7, 9), seeds(4, 5, 6))
    assert (found.n, found.mean, found.std) == (3, 2.0, 1.0)
    assert found.p_value == pytest.approx(1 - math.sqrt(12 / 14))
    reach = 0.95 * math.sqrt(2 / (1 - 0.95**2)) / math.sqrt(3)
    assert (found.low, found.high) == (pytest.approx(2 - reach), pytest.approx(2 + reach))


def test_two_pairs_by_hand() -> None:
    """One degree of freedom is the Cauchy distribution: differences 1 and 3 give t = 2, p = 1 - 2 atan(2) / pi, bound tan(.475 pi)."""
    found = paired(seeds(1, 3), seeds(0, 0))
    assert found.std == pytest.approx(math.sqrt(2))
    assert found.p_value == pytest.approx(1 - 2 * math.atan(2) / math.pi)
    assert found.high == pytest.approx(2 + math.tan(0.475 * math.pi))


def test_students_own_example() -> None:
    """Additional hours of sleep of ten patients by two drugs (Student 1908): t = 4.0621 with 9 degrees of freedom, p = .00283."""
    second = seeds(0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0)
    first = seeds(1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4)
    found = paired(first, second)
    assert found.mean == pytest.approx(1.58) and found.std == pytest.approx(1.2300, abs=1e-4)
    assert found.mean is not None and found.std is not None
    assert found.mean / (found.std / math.sqrt(10)) == pytest.approx(4.0621, abs=1e-4)
    assert found.p_value == pytest.approx(0.00283, abs=1e-5)
    assert (found.low, found.high) == (pytest.approx(0.7001, abs=1e-4), pytest.approx(2.4599, abs=1e-4))


def test_only_shared_seeds_count_whatever_their_order() -> None:
    assert paired({3: 0.9, 1: 0.5, 2: 0.6}, {1: 0.4, 2: 0.4, 7: 0.1}) == paired({1: 0.5, 2: 0.6}, {2: 0.4, 1: 0.4})


def test_what_n_does_not_allow_is_none() -> None:
    assert paired({1: 0.5}, {2: 0.5}) == Paired(n=0)
    assert paired({1: 0.75}, {1: 0.5}) == Paired(n=1, mean=0.25)
    same = paired(seeds(0.8, 0.9, 0.7), seeds(0.7, 0.8, 0.6))  # .1 each, but for rounding
    assert same == Paired(n=3, mean=pytest.approx(0.1), std=0.0)


def arm(method: str, seed: int, accuracy: float | None, density: float = 0.1) -> dict:
    return opened({"target": "net", "dataset": "digits", "method": method, "density": density, "seed": seed, "accuracy": accuracy})


def test_controls_are_compared_with_their_own_method() -> None:
    arms = [
        *(arm("snip", seed, accuracy) for seed, accuracy in ((1, 0.9), (2, 0.8), (3, None))),
        *(arm("snip+shuffle", seed, accuracy) for seed, accuracy in ((1, 0.7), (2, 0.7), (3, 0.7))),
        arm("snip+invert", 1, None),
        arm("grasp", 1, 0.5),
        arm("grasp+shuffle", 1, 0.6),
        arm("grasp", 1, 0.5, density=0.02),
    ]
    rows = control_rows(arms)
    assert [(row["method"], row["control"], row["density"], row["n"]) for row in rows] == [
        ("grasp", "shuffle", 0.1, 1),
        ("snip", "shuffle", 0.1, 2),
    ]
    assert rows[0]["difference"] == pytest.approx(-0.1) and rows[0]["p_value"] is None
    assert rows[1]["difference"] == pytest.approx(0.15) and rows[1]["std"] == pytest.approx(0.0707107)
    half = math.tan(0.475 * math.pi) * 0.05
    assert control_table(rows).splitlines() == [
        "| target | dataset | density | method | minus shuffle |",
        "|---|---|---|---|---|",
        "| net | digits | 0.1 | grasp | -0.100 (n=1) |",
        f"| net | digits | 0.1 | snip | +0.150 [{0.15 - half:+.3f}, {0.15 + half:+.3f}] (n=2) |",
    ]


def test_without_controls_there_is_nothing_to_compare() -> None:
    assert control_rows([arm("snip", 1, 0.9), arm("dense", 1, 0.9, density=1.0)]) == []


def test_cells_hold_the_methods_themselves_or_one_control_and_every_place() -> None:
    arms = [arm("snip", 1, 0.9), arm("snip", 2, None), arm("snip+shuffle", 1, 0.7), arm("grasp+shuffle", 1, 0.6, density=0.02)]
    first, second = ("net", "digits", 0.1), ("net", "digits", 0.02)
    assert cells(arms) == {first: {"snip": {1: 0.9}}, second: {}}
    assert cells(arms, "shuffle") == {first: {"snip": {1: 0.7}}, second: {"grasp": {1: 0.6}}}
    assert cells(arms, "invert") == {first: {}, second: {}}
