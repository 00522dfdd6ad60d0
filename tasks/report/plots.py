"""The metric over density and densities of layers: the same drawings for storage, MLflow, the README and the report page."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from autosparse.models.arms.arm import arm_name
from autosparse.models.arms.controls import CONTROLS
from autosparse.models.specs.grain import number_of
from autosparse.models.specs.run_specs import DENSE, LEARNED, SCORER, SCORER_GROWTH, TICKET
from autosparse.tasks.report.style import COLORS, INK, RED, SOFT, figure_bytes, legend_columns, plain, series_styles, sheet, styled
from autosparse.tasks.results.measured import axis_of
from autosparse.tasks.results.rows import Row, curves

# the two ends of the scale and the scorer keep their own marks everywhere
MARKS = {SCORER: (RED, "*", "-", 2.4), SCORER_GROWTH: (RED, "P", "-.", 2.0), TICKET: (INK, "s", "--", 1.6)}
LINES = dict(zip(CONTROLS, ("--", "-.", (0, (3, 1, 1, 1)), ":", (0, (5, 1)), (0, (1, 4))), strict=True))
MOST_NAMES = 30  # layer names along an axis, else every other one
STRIP, ALONE = 0.72, 2.4  # inches of height of a layer's bars, of one method among several and of a single one


@styled()
def accuracy_density_plot(rows: list[Row], kind: str) -> bytes:
    """The mean test metric over the density that was kept, a panel per target and data set, as a `png` or `svg` file."""
    panels = list(dict.fromkeys((row["target"], row["dataset"]) for row in rows))
    figure = sheet(4.0, columns=len(panels))
    for panel, part in zip(panels, figure.subfigures(1, len(panels), squeeze=False)[0], strict=True):
        axes = accuracy_panel(part, [row for row in rows if (row["target"], row["dataset"]) == panel])
        axes.set_title(plain(f"{panel[0]} on {panel[1]}"))
        axes.set_ylabel(plain(f"{axis_of(rows)}, last epoch"))
        axes.set_xlabel("density (weights that are not zero / prunable weights)")
    return figure_bytes(figure, kind)


def accuracy_panel(figure: Figure | SubFigure, rows: list[Row]) -> Axes:
    """The mean test metric of one target and data set in a figure or a part of one, error bars of one standard deviation.

    A line per method; methods without a density target are a line through their levels, where they landed.
    """
    axes = figure.add_subplot()
    found = curves(rows)
    methods = sorted(set(found) - {TICKET, *LEARNED})
    styles = series_styles(methods) | MARKS
    controls = []
    for control in sorted({row["control"] for row in rows if row["control"]}):  # in the colour of their method, thin and broken
        for method, curve in curves(rows, control).items():
            color, marker = styles.get(method, (SOFT, "."))[:2]
            controls.append(name := arm_name(method, control))
            styles[name], found[name] = (color, marker, LINES[control], 0.8), curve
    for method in (*methods, *sorted(controls), TICKET, *reversed(LEARNED)):
        if method in found:
            color, marker, line, width = styles[method]
            x, y, error = zip(*found[method], strict=True)
            size = 9 if method == SCORER else 5
            axes.errorbar(x, y, yerr=error, color=color, marker=marker, ms=size, linestyle=line, lw=width, capsize=3, label=plain(method))
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
    axes.set_ylabel(plain(axis_of(rows)))
    axes.grid()
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=legend_columns(labels, 3, wide=84))
    return axes


def density_ticks(rows: list[Row]) -> list[float]:
    """Densities that were asked for; round ones too, where methods landed anywhere up to 1, as those at a share of another cost do."""
    own = [row for row in rows if row["density"] is None or number_of([row["method"]]) == "share"]
    asked = {row["density"] for row in rows if row not in own and row["method"] != DENSE}
    reached = [row["kept_density"] for row in own if row["kept_density"]]
    return sorted(asked | {tick for tick in (0.01, 0.1, 0.3, 1.0) if reached and min(reached) <= tick <= 1})


@styled()
def layer_density_plot(densities: dict[str, float], density: float, title: str) -> bytes:
    """Density of each layer after one cut, in the order of the network, as a PNG file."""
    return figure_bytes(layer_strips({f"{title}: density of each layer after the cut": densities}, density), "png")


@styled()
def layer_strips(rows: dict[str, dict[str, float]], density: float | None) -> Figure:
    """Density of each layer after the cut, a strip of bars per method, logarithmic; the line is the `density` of the whole, where given."""
    names = list(next(iter(rows.values())))
    positive = [value for layers in rows.values() for value in layers.values() if value > 0]
    longest = max(len(_layer(name)) for name in names)
    figure = sheet((STRIP if len(rows) > 1 else ALONE) * len(rows) + 0.066 * longest + 0.25)
    strips = np.atleast_1d(figure.subplots(len(rows), 1, sharex=True, sharey=True))
    for strip, (method, layers) in zip(strips, rows.items(), strict=True):
        color = RED if method == SCORER else INK if method == TICKET else COLORS[0]
        strip.bar(np.arange(len(names)), [layers.get(name, 0.0) for name in names], color=color, alpha=0.85)
        if density is not None:
            strip.axhline(density, color=SOFT, linestyle=":", lw=1.2)
        strip.set_yscale("log")
        strip.set_ylim(min(positive, default=density or 1.0) / 1.6, 1.6)
        strip.minorticks_off()
        strip.tick_params(axis="y", labelsize=7.5)
        strip.tick_params(axis="x", length=0)
        strip.set_title(plain(method), loc="left", fontsize=8.5, pad=2)
    shown = range(0, len(names), -(-len(names) // MOST_NAMES))
    strips[-1].set_xticks(list(shown), [_layer(names[n]) for n in shown], rotation=90, fontsize=7.5)
    return figure


def _layer(name: str) -> str:
    return plain(name.removesuffix(".weight"))
