"""The metric over each cost, a panel per cost: a line per method, narrower dense networks as the reference, the frontier marked."""

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from autosparse.models.methods.names import family
from autosparse.models.specs.grain import NARROW
from autosparse.models.specs.run_specs import DENSE
from autosparse.tasks.report.plots import MARKS
from autosparse.tasks.report.style import INK, figure_bytes, figure_element, legend_columns, plain, series_styles, sheet, styled
from autosparse.tasks.results.costs import COINS
from autosparse.tasks.results.frontier import Frontier, Point
from autosparse.tasks.results.frontier_words import amount
from autosparse.tasks.results.measured import axis_of, stored

Lines = dict[str, list[Point]]
ROW, PANELS = 2.35, 2  # inches of height of a row of panels, and panels in a row
REFERENCE: Any = (INK, "o", "-", 1.8)


def frontier_plot(found: Frontier, kind: str) -> bytes:
    """The figure as a `png` or `svg` file."""
    return figure_bytes(frontier_figure(found), kind)


def frontier_picture(found: Frontier, label: str) -> str:
    """The figure as an element of the report page."""
    return figure_element(frontier_figure(found), label)


@styled()
def frontier_figure(found: Frontier) -> Figure:
    """The mean over the logarithm of the mean cost; a ring is a point on the frontier."""
    lines = _lines(found)
    others = sorted(set(lines) - set(MARKS) - {NARROW, DENSE})
    styles = series_styles(others) | MARKS | {NARROW: REFERENCE, DENSE: REFERENCE}
    coins = [coin for coin in COINS if coin.key in found.coins]
    rows = -(-len(coins) // PANELS)
    columns = legend_columns(map(plain, lines), 4)
    figure = sheet(ROW * rows + 0.2 * (1 + len(lines) // columns), columns=1.3)
    panels = list(figure.subplots(rows, PANELS, sharey=True, squeeze=False).flat)
    for axes, coin in zip(panels, coins, strict=False):
        for name, points in lines.items():
            _draw(axes, [point for point in points if coin.key in point.places], coin.key, styles[name], plain(name))
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if _decades(found, coin.key) < 1.5 else (1,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: amount(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_title(f"{coin.words}, {coin.unit}" if coin.unit else coin.words)
        axes.grid()
    for axes in panels[len(coins) :]:
        axes.set_axis_off()
    for axes in panels[::PANELS]:
        axes.set_ylabel(plain(axis_of([stored(found.metric)])))
    handles = {label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)
    return figure


def _decades(found: Frontier, key: str) -> float:
    """How many powers of ten the costs of the points span."""
    costs = [point.places[key].cost for point in found.points if key in point.places]
    return math.log10(max(costs) / min(costs))


def _lines(found: Frontier) -> Lines:
    """Points by the line they stand on: a method at its densities, the levels of a family, narrow networks up to the dense one."""
    lines: Lines = {}
    for point in found.points:
        name = NARROW if found.baseline and point.in_baseline else point.method if point.density is not None else family(point.method)
        lines.setdefault(name, []).append(point)
    return lines


def _draw(axes: Axes, points: list[Point], key: str, style: tuple[str, str, Any, float], label: str) -> None:
    points = sorted(points, key=lambda point: point.places[key].cost)
    if not points:
        return
    color, marker, line, width = style
    x, y = [point.places[key].cost for point in points], [point.value for point in points]
    axes.plot(x, y, color=color, marker=marker, ms=4.5, linestyle=line, lw=width, label=label)
    best = [point for point in points if point.places[key].on_frontier]
    axes.scatter(
        [point.places[key].cost for point in best], [point.value for point in best], s=90, facecolors="none", edgecolors=color, lw=1
    )
