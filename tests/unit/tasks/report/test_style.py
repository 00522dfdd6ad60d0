"""One look for files and page: colours of the style sheet, settings that end with the drawing, names that stay names."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import matplotlib
import pytest

from autosparse.tasks.report import style
from autosparse.tasks.report.plots import accuracy_density_plot, layer_density_plot
from autosparse.tasks.results.rows import summarize

SHEET = Path(style.__file__).parent / "templates" / "style.css"


def test_the_colours_are_those_of_the_style_sheet_on_light_paper() -> None:
    light = SHEET.read_text().split("@media")[0]
    known = dict(re.findall(r"(--[\w-]+): (#\w+)", light))
    assert {style.VARIABLES[color]: color for color in (style.INK, style.SOFT, style.RED)}.items() <= known.items()
    assert set(style.VARIABLES.values()) <= known.keys()


def test_an_element_of_the_page_has_no_paper_and_follows_the_page() -> None:
    with style.styled():
        figure = style.sheet(2.0)
        figure.add_subplot().plot([0, 1], [0, 1], color=style.RED)
    element = style.figure_element(figure, "a <b>")
    assert element.startswith('<svg viewBox="') and 'aria-label="a &lt;b&gt;"' in element
    assert f"stroke: var(--scorer, {style.RED})" in element and "var(--ink" in element
    assert "#ffffff" not in element and "font-family: inherit" in element


def test_settings_of_others_are_as_before_also_after_two_threads() -> None:
    before, together = dict(matplotlib.rcParams), Barrier(2)

    def draw(number: int) -> bytes:
        together.wait()
        return layer_density_plot({"a.weight": 1.0, "b.weight": 0.01}, 0.1, "round 0")

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(draw, range(2))
    assert first == second == layer_density_plot({"a.weight": 1.0, "b.weight": 0.01}, 0.1, "round 0")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_dollar_in_a_name_starts_no_formula(kind: str) -> None:
    same = {"density": 0.1, "kept_density": 0.1, "seed": 1, "accuracy": 0.5}
    rows = summarize([{"target": "$x_{$", "dataset": "$y", "method": "$\\bad$", "control": None, **same}])
    assert len(accuracy_density_plot(rows, kind)) > 1000


def test_a_legend_has_as_many_columns_as_its_longest_name_leaves_room_for() -> None:
    assert style.legend_columns(["snip", "dense"], 4) == 4
    assert style.legend_columns(["snip", "smallest_paths(grain=mixed)"], 4) == 2  # 27 and the mark: 33 of 96
    assert style.legend_columns(["x" * 200], 4) == 1
    assert style.legend_columns([], 3) == 3
