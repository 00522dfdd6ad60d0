"""Figures of the report page: inline SVG without a background, whose ink and colours follow the page's style sheet.

Text stays text (the browser's own font), so a figure is small and reads well on light and dark paper. Colours are CSS
variables with the printed colour as fallback.
"""

import hashlib
import re
from collections.abc import Callable
from html import escape
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from autosparse.models.specs.run_specs import DENSE, LEARNED, SCORER, SCORER_GROWTH, TICKET
from autosparse.tasks.report.plots import COLORS, density_ticks, series_styles
from autosparse.tasks.report.survival_map import GROWTH_EDGES, WEIGHT_EDGES, SurvivalMap
from autosparse.tasks.results.rows import Row, curves

INK, SOFT = "#010203", "#040506"  # nobody draws with these two: they become the page's text and line colours
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "autosparse",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": SOFT,
    "grid.alpha": 0.35,
    "legend.frameon": False,
}
RED = "#D00000"
VARIABLES = {INK: "--ink", SOFT: "--line", RED: "--scorer"} | {color: f"--series-{n}" for n, color in enumerate(COLORS)}
MOST_NAMES = 30  # layer names along an axis, else every other one
MOST_ZOOM = 1.6  # pixels of the page per point of the figure, on a wide screen
WIDTH = 4.9  # inches: printed size on a narrow screen is about the drawn one


def accuracy_figure(rows: list[Row], label: str) -> str:
    """Mean test accuracy over kept density of one target and data set, a line per method, bars of one standard deviation."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(WIDTH, 3.7)
        found = curves(rows)
        methods = sorted(set(found) - {TICKET, *LEARNED})
        learned = {SCORER: (RED, "*", "-", 2.4), SCORER_GROWTH: (RED, "P", "-.", 2.0)}
        styles = series_styles(methods, 1.3) | learned | {TICKET: (INK, "s", "--", 1.6)}
        for method in (*methods, TICKET, *reversed(LEARNED)):
            if method in found:
                color, marker, line, width = styles[method]
                x, y, error = zip(*found[method], strict=True)
                size = 9 if method == SCORER else 5
                axes.errorbar(
                    x, y, yerr=error, color=color, marker=marker, ms=size, linestyle=line, lw=width, capsize=3, label=_plain(method)
                )
        for row in rows:
            if row["method"] == DENSE and row["mean"] is not None:
                axes.axhline(row["mean"], color=SOFT, linestyle=":", lw=1.6, label="dense")
        ticks = density_ticks(rows)
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{density:g}" for density in ticks])
        axes.minorticks_off()
        if len(ticks) == 1:
            axes.set_xlim(ticks[0] / 2, ticks[0] * 2)
        axes.set_xlabel("density")
        axes.set_ylabel("test accuracy")
        axes.grid()
        handles = axes.get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=3, fontsize=8)
        return _svg(figure, label)


def layers_figure(rows: dict[str, dict[str, float]], density: float, label: str) -> str:
    """Density of each layer after the cut, a strip of bars per method, logarithmic; the line is the density of the whole."""
    names = list(next(iter(rows.values())))
    positive = [value for layers in rows.values() for value in layers.values() if value > 0]
    with matplotlib.rc_context(STYLE):
        longest = max(len(_layer(name)) for name in names)
        figure = Figure(figsize=(WIDTH, 0.72 * len(rows) + 0.066 * longest + 0.25), layout="constrained")
        strips = np.atleast_1d(figure.subplots(len(rows), 1, sharex=True, sharey=True))
        for strip, (method, layers) in zip(strips, rows.items(), strict=True):
            color = RED if method == SCORER else INK if method == TICKET else COLORS[0]
            strip.bar(np.arange(len(names)), [layers.get(name, 0.0) for name in names], color=color, alpha=0.85)
            strip.axhline(density, color=SOFT, linestyle=":", lw=1.2)
            strip.set_yscale("log")
            strip.set_ylim(min(positive, default=density) / 1.6, 1.6)
            strip.minorticks_off()
            strip.tick_params(axis="y", labelsize=7.5)
            strip.tick_params(axis="x", length=0)
            strip.set_title(_plain(method), loc="left", fontsize=8.5, pad=2)
        shown = range(0, len(names), -(-len(names) // MOST_NAMES))
        strips[-1].set_xticks(list(shown), [_layer(names[n]) for n in shown], rotation=90, fontsize=7.5)
        return _svg(figure, label)


def overlap_figure(methods: list[str], shares: np.ndarray, label: str) -> str:
    """Share of the weights kept by the column's method that the row's method keeps too."""
    with matplotlib.rc_context(STYLE):
        side = max(2.9, 0.42 * len(methods) + 1.2)
        figure, axes = _figure(max(side, 3.4), side)
        axes.imshow(shares, vmin=0, vmax=1, cmap="cividis", interpolation="none")
        for row, column in np.ndindex(*shares.shape):
            value = shares[row, column]
            shade = "#111111" if value > 0.55 else "#f6f6f6"
            axes.text(column, row, f"{value:.2f}".removeprefix("0"), ha="center", va="center", color=shade, fontsize=8.5)
        places = range(len(methods))
        axes.set_xticks(places, [_plain(method) for method in methods], rotation=90)
        axes.set_yticks(places, [_plain(method) for method in methods])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return _svg(figure, label)


def survival_figure(found: SurvivalMap, label: str) -> str:
    """Mean rounds survived over scaled weight and growth gradient, and the number of weights beside it."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(WIDTH, 3.9)
        extent = (GROWTH_EDGES[0], GROWTH_EDGES[-1], WEIGHT_EDGES[0], WEIGHT_EDGES[-1])
        picture = axes.imshow(
            found.mean, extent=extent, origin="lower", aspect="auto", cmap="cividis", vmin=0, vmax=found.rounds, interpolation="none"
        )
        axes.set_xlabel("g · sign(w) / rms of the layer   (< 0: descent makes |w| larger)")
        axes.set_ylabel("|w| / std of the layer")
        bar = figure.colorbar(picture, ax=axes, pad=0.02)
        bar.set_label("mean rounds survived")
        bar.outline.set_visible(False)  # type: ignore[operator]
        return _svg(figure, label)


def page_figure(draw: Callable[[], Figure], label: str) -> str:
    """A figure that is drawn elsewhere, in the style of the page."""
    with matplotlib.rc_context(STYLE):
        return _svg(draw(), label)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _plain(text: str) -> str:
    """The text itself: a dollar sign would start a formula."""
    return text.replace("$", r"\$")


def _layer(name: str) -> str:
    return _plain(name.removesuffix(".weight"))


def _svg(figure: Figure, label: str) -> str:
    """The figure as an element of an HTML page: no prolog, no size of its own, ids that no other figure has."""
    FigureCanvasSVG(figure)
    buffer = BytesIO()
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    head, rest = text.split(">", 1)
    box = re.search(r'viewBox="([\d. ]+)"', head)
    assert box, "matplotlib writes a viewBox"
    prefix = f"f{hashlib.sha256(label.encode()).hexdigest()[:8]}-"
    rest = re.sub(r'\bid="', f'id="{prefix}', rest).replace("url(#", f"url(#{prefix}")
    rest = rest.replace('xlink:href="#', f'href="#{prefix}').replace('xlink:href="data:', 'href="data:')
    rest = re.sub(r"font-family: [^;\"]*", "font-family: inherit", rest)
    rest = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1; font-family: inherit", rest)
    for color, variable in VARIABLES.items():
        rest = re.sub(re.escape(color), f"var({variable}, {color})", rest, flags=re.IGNORECASE)
    width = float(box.group(1).split()[2]) * MOST_ZOOM
    return f'<svg viewBox="{box.group(1)}" role="img" aria-label="{escape(label)}" style="max-width: {width:.0f}px">{rest.strip()}'
