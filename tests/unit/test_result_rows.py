"""Means, spread and n on paper, and how they are shown."""

import pytest

from tasks.plots import accuracy_density_plot, layer_density_plot
from tasks.result_rows import cell, markdown_table, summarize


def arm(method: str, density: float, seed: int, accuracy: float | None) -> dict:
    return {
        "target": "net",
        "dataset": "digits",
        "method": method,
        "density": density,
        "kept_density": density,
        "seed": seed,
        "accuracy": accuracy,
    }


ARMS = [
    arm("snip", 0.1, 1, 0.8),
    arm("snip", 0.1, 2, 0.9),
    arm("snip", 0.1, 3, None),
    arm("snip", 0.02, 1, None),
    arm("dense", 1.0, 1, 0.95),
]


def test_mean_std_and_n_over_seeds() -> None:
    rows = {(row["method"], row["density"]): row for row in summarize(ARMS)}
    found = rows["snip", 0.1]
    assert found["mean"] == pytest.approx(0.85)
    assert found["std"] == pytest.approx(0.0707106781)  # sqrt((.05^2 + .05^2) / 1)
    assert (found["n"], found["failed"]) == (2, 1)
    assert rows["snip", 0.02]["mean"] is None
    assert rows["dense", 1.0]["std"] is None


def test_cells() -> None:
    rows = {(row["method"], row["density"]): row for row in summarize(ARMS)}
    assert cell(rows["snip", 0.1]) == "0.850 ± 0.071 (n=2)"
    assert cell(rows["snip", 0.02]) == "collapsed"
    assert cell(rows["dense", 1.0]) == "0.950 (n=1)"


def test_markdown_has_a_line_per_method_and_a_column_per_density() -> None:
    assert markdown_table(summarize(ARMS)).splitlines() == [
        "| target | dataset | method | 0.1 | 0.02 |",
        "|---|---|---|---|---|",
        "| net | digits | dense | 0.950 (n=1) | 0.950 (n=1) |",
        "| net | digits | snip | 0.850 ± 0.071 (n=2) | collapsed |",
    ]


def test_the_same_rows_give_the_same_svg() -> None:
    rows = summarize(ARMS)
    assert accuracy_density_plot(rows, "svg") == accuracy_density_plot(rows, "svg")
    assert accuracy_density_plot(rows, "png").startswith(b"\x89PNG")
    assert layer_density_plot({"a.weight": 1.0, "b.weight": 0.01}, "round 0").startswith(b"\x89PNG")
