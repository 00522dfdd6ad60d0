"""Pictures as bytes, the same for storage, MLflow and the README. Colours can be told apart by colour-blind readers."""

import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from autosparse.models.arms.arm import arm_name
from autosparse.models.arms.controls import CONTROLS
from autosparse.models.specs.run_specs import DENSE, LEARNED, SCORER, SCORER_GROWTH, TICKET
from autosparse.tasks.results.rows import curves

# Okabe and Ito's palette; the two ends of the scale and the scorer keep their own marks everywhere
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D1F", "#5C5C8A")
MARKERS = "osD^vPX*"
MOST_INSIDE = 8  # lines whose legend has room in the picture
LINES = dict(zip(CONTROLS, ("--", "-.", (0, (3, 1, 1, 1)), ":", (0, (5, 1)), (0, (1, 4))), strict=True))
matplotlib.rcParams["svg.hashsalt"] = "autosparse"  # the same numbers give the same file


def accuracy_density_plot(rows: list[dict[str, Any]], kind: str) -> bytes:
    """Mean test accuracy over the density that was kept, a panel per target and data set, error bars of one std.

    A line per method; methods without a density target are a line through their levels, where they landed.
    """
    panels = list(dict.fromkeys((row["target"], row["dataset"]) for row in rows))
    figure = Figure(figsize=(6.4 * len(panels), 4.6), layout="constrained")
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), number + 1)
        _panel(axes, [row for row in rows if (row["target"], row["dataset"]) == panel and row["mean"] is not None])
        axes.set_title(f"{panel[0]} on {panel[1]}")
        axes.set_ylabel("test accuracy, last epoch")
    return figure_bytes(figure, kind)


def _panel(axes: Axes, rows: list[dict[str, Any]]) -> None:
    found = curves(rows)
    methods = sorted(set(found) - {TICKET, *LEARNED})
    styles = series_styles(methods)
    styles |= {SCORER: ("#D00000", "*", "-", 2.6), SCORER_GROWTH: ("#D00000", "P", "-.", 2.2), TICKET: ("black", "s", "--", 1.8)}
    controls = []
    for control in sorted({row["control"] for row in rows if row["control"]}):  # in the colour of their method, thin and broken
        for method, curve in curves(rows, control).items():
            color, marker = styles.get(method, ("gray", "."))[:2]
            controls.append(name := arm_name(method, control))
            styles[name], found[name] = (color, marker, LINES[control], 0.8), curve
    for method in (*methods, *sorted(controls), *LEARNED, TICKET):
        if method in found:
            color, marker, line, width = styles[method]
            x, y, error = zip(*found[method], strict=True)
            axes.errorbar(x, y, yerr=error, color=color, marker=marker, linestyle=line, linewidth=width, capsize=3, label=method)
    for row in rows:
        if row["method"] == DENSE:
            axes.axhline(row["mean"], color="gray", linestyle=":", label="dense")
    axes.set_xscale("log")
    ticks = density_ticks(rows)
    axes.set_xticks(ticks, [f"{density:g}" for density in ticks])
    axes.minorticks_off()
    axes.set_xlabel("density (weights that are not zero / prunable weights)")
    axes.grid(alpha=0.25)
    if len(found) > MOST_INSIDE:  # more would hide points
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.01, 0.5))
    else:
        axes.legend(fontsize="small", ncols=2)


def series_styles(methods: list[str], width: float = 1.4) -> dict[str, tuple[str, str, Any, float]]:
    """Colour, marker, line and width of each method: no two the same before 64 of them."""
    several = [(number, number // len(COLORS)) for number in range(len(methods))]
    return {
        method: (COLORS[number % len(COLORS)], MARKERS[(number + turn) % len(MARKERS)], "-", width)
        for method, (number, turn) in zip(methods, several, strict=True)
    }


def density_ticks(rows: list[dict[str, Any]]) -> list[float]:
    """Densities that were asked for; round ones too, where methods landed anywhere up to 1."""
    asked = {row["density"] for row in rows if row["density"] is not None and row["method"] != DENSE}
    reached = [row["kept_density"] for row in rows if row["density"] is None and row["kept_density"]]
    return sorted(asked | {tick for tick in (0.01, 0.1, 0.3, 1.0) if reached and min(reached) <= tick <= 1})


def layer_density_plot(densities: dict[str, float], title: str) -> bytes:
    """Density of each layer after a cut, in the order of the network, logarithmic."""
    figure = Figure(figsize=(max(5.0, 0.22 * len(densities) + 2), 3.6), layout="constrained")
    axes = figure.add_subplot()
    place = np.arange(len(densities))
    axes.bar(place, list(densities.values()), color=COLORS[0])
    axes.set_yscale("log")
    axes.set_xticks(place, [name.removesuffix(".weight") for name in densities], rotation=90, fontsize="x-small")
    axes.set_ylabel("density after the cut")
    axes.set_title(title, fontsize="small")
    return figure_bytes(figure, "png")


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as `png` or `svg`, the same bytes for the same numbers."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()
