"""Figures that the report page alone has, as elements of it; accuracy and layers are drawn as in the files of a run."""

import numpy as np

from autosparse.tasks.report.plots import accuracy_panel, layer_strips
from autosparse.tasks.report.style import COLUMN, figure_element, plain, sheet, styled
from autosparse.tasks.report.survival_map import GROWTH_EDGES, WEIGHT_EDGES, SurvivalMap
from autosparse.tasks.results.rows import Row


@styled()
def accuracy_figure(rows: list[Row], label: str) -> str:
    """Mean test accuracy over kept density of one target and data set, a line per method, bars of one standard deviation."""
    figure = sheet(3.7)
    accuracy_panel(figure, rows)
    return figure_element(figure, label)


def layers_figure(rows: dict[str, dict[str, float]], density: float | None, label: str) -> str:
    """Density of each layer after the cut, a strip of bars per method."""
    return figure_element(layer_strips(rows, density), label)


@styled()
def overlap_figure(methods: list[str], shares: np.ndarray, label: str) -> str:
    """Share of the weights kept by the column's method that the row's method keeps too."""
    side = max(2.9, 0.42 * len(methods) + 1.2)
    figure = sheet(side, columns=max(side, 3.4) / COLUMN)
    axes = figure.add_subplot()
    axes.imshow(shares, vmin=0, vmax=1, cmap="cividis", interpolation="none")
    for row, column in np.ndindex(*shares.shape):
        value = shares[row, column]
        shade = "#111111" if value > 0.55 else "#f6f6f6"
        axes.text(column, row, f"{value:.2f}".removeprefix("0"), ha="center", va="center", color=shade, fontsize=8.5)
    names = [plain(method) for method in methods]
    axes.set_xticks(range(len(methods)), names, rotation=90)
    axes.set_yticks(range(len(methods)), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure_element(figure, label)


@styled()
def survival_figure(found: SurvivalMap, label: str) -> str:
    """Mean rounds survived over scaled weight and growth gradient, and the number of weights beside it."""
    figure = sheet(3.9)
    axes = figure.add_subplot()
    extent = (GROWTH_EDGES[0], GROWTH_EDGES[-1], WEIGHT_EDGES[0], WEIGHT_EDGES[-1])
    picture = axes.imshow(
        found.mean, extent=extent, origin="lower", aspect="auto", cmap="cividis", vmin=0, vmax=found.rounds, interpolation="none"
    )
    axes.set_xlabel("g · sign(w) / rms of the layer   (< 0: descent makes |w| larger)")
    axes.set_ylabel("|w| / std of the layer")
    bar = figure.colorbar(picture, ax=axes, pad=0.02)
    bar.set_label("mean rounds survived")
    bar.outline.set_visible(False)  # type: ignore[operator]
    return figure_element(figure, label)
