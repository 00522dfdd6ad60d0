"""Gap closure, controls and the headline on paper."""

import pytest

from tasks.verdicts import controls, gaps, headline, standing


def row(method: str, density: float, mean: float | None, n: int = 1) -> dict:
    return {"target": "net", "dataset": "digits", "method": method, "density": density, "mean": mean, "std": None, "n": n, "failed": 0}


def test_gap_closure_by_hand() -> None:
    (gap,) = gaps(
        [row("snip", 0.1, 0.71), row("random", 0.1, 0.6), row("scorer", 0.1, 0.77), row("ticket", 0.1, 0.81), row("dense", 1, 0.9)]
    )
    assert gap.best_name == "snip"
    assert gap.closure == pytest.approx(0.6)  # (.77 - .71) / (.81 - .71)
    assert gap.lead == pytest.approx(0.06)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([row("snip", 0.1, 0.7), row("scorer", 0.1, 0.8)], "no ticket"),
        ([row("snip", 0.1, 0.7), row("ticket", 0.1, 0.8)], "no scorer"),
        ([row("ticket", 0.1, 0.7), row("scorer", 0.1, 0.8)], "no criterion"),
        ([row("snip", 0.1, None), row("scorer", 0.1, None), row("ticket", 0.1, 0.8)], "no scorer and no criterion"),
        ([row("snip", 0.1, 0.8), row("scorer", 0.1, 0.7), row("ticket", 0.1, 0.8)], "the ticket is not above the best criterion"),
    ],
)
def test_gap_closure_that_is_not_defined(rows: list[dict], why: str) -> None:
    (gap,) = gaps(rows)
    assert gap.closure is None and gap.why == why


def test_neither_a_control_nor_an_unknown_method_is_the_best_criterion() -> None:
    (gap,) = gaps([row("snip", 0.1, 0.7), row("snip+reinit", 0.1, 0.9), row("somebody", 0.1, 0.95), row("scorer", 0.1, 0.8)])
    assert (gap.best_name, gap.best) == ("snip", 0.7)


def test_looking_ahead_is_a_track_of_its_own() -> None:
    rows = [
        row("snip", 0.1, 0.6),
        row("growth", 0.1, 0.75),
        row("scorer", 0.1, 0.65),
        row("scorer_growth", 0.1, 0.7),
        row("ticket", 0.1, 0.8),
    ]
    strict, ahead = gaps(rows)
    assert (strict.method, strict.best_name, strict.closure) == ("scorer", "snip", pytest.approx(0.25))
    assert (ahead.method, ahead.best_name, ahead.closure) == ("scorer_growth", "snip", pytest.approx(0.5))
    assert headline([strict, ahead]) == headline([strict])


def test_each_target_and_density_has_a_gap() -> None:
    rows = [row("scorer", density, 0.5) for density in (0.02, 0.1)] + [{**row("scorer", 0.1, 0.5), "target": "other"}]
    assert [(gap.target, gap.density) for gap in gaps(rows)] == [("net", 0.1), ("net", 0.02), ("other", 0.1)]


@pytest.mark.parametrize(
    ("control", "accuracy", "verdict"),
    [
        ("shuffle", 0.80, "weights matter"),  # exactly a point, which binary fractions miss
        ("shuffle", 0.8001, "only layer densities matter"),
        ("shuffle", 0.9, "only layer densities matter"),
        ("reinit", 0.7, "initial values matter"),
        ("reinit", 0.81, "initial values do not matter"),
        ("invert", 0.1, "the order of scores matters"),
        ("other", 0.1, "accuracy falls"),
        ("shuffle", None, "not defined: an accuracy is missing"),
    ],
)
def test_verdict_of_a_control(control: str, accuracy: float | None, verdict: str) -> None:
    (found,) = controls([row("scorer", 0.1, 0.81), row(f"scorer+{control}", 0.1, accuracy)])
    assert (found.method, found.control, found.verdict) == ("scorer", control, verdict)


def test_a_control_without_its_method() -> None:
    (found,) = controls([row("scorer+shuffle", 0.1, 0.5), row("scorer", 0.02, 0.9)])
    assert found.difference is None and found.verdict.startswith("not defined")


@pytest.mark.parametrize(("scorer", "place"), [(0.71, "ahead"), (0.709, "level"), (0.7, "level"), (0.69, "behind"), (None, "open")])
def test_standing(scorer: float | None, place: str) -> None:
    (gap,) = gaps([row("snip", 0.1, 0.7), row("scorer", 0.1, scorer)])
    assert standing(gap) == place


def test_headlines() -> None:
    def said(*scorer: float | None) -> str:
        densities = [0.5, 0.1, 0.02][: len(scorer)]
        rows = [row("snip", density, 0.7) for density in densities]
        return headline(gaps(rows + [row("scorer", *cell) for cell in zip(densities, scorer, strict=True)]))

    assert said(0.8) == "The scorer beats the best criterion at the one density."
    assert said(0.7, 0.705) == "The scorer is level with the best criterion at all 2 densities."
    assert said(0.8, 0.7, 0.6) == "Against the best criterion the scorer is ahead at 1, level at 1 and behind at 1 of 3 densities."
    assert said(None).startswith("No verdict yet")
    assert headline([]).startswith("No verdict yet")
