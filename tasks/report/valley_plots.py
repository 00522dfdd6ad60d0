"""Pictures of what lies between two networks: curve, plane, spectrum. As figures, to be shown or stored."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from autosparse.tasks.report.style import COLORS, SOFT, figure_bytes, sheet, styled

Record = dict[str, Any]
HIGHEST = 1e4  # times the lowest loss: above, the colours of a plane would show nothing but its edge
LEVELS = 24
WIDE = 50  # eigenvalues that differ by more than this are drawn on a logarithmic axis
TINY = 1e-12


def pictures(report: Record, kind: str) -> dict[str, bytes]:
    """Name -> picture of everything in a comparison that has one."""
    return {name: figure_bytes(draw(report), kind) for name, draw in figures(report).items()}


def figures(report: Record) -> dict[str, Callable[[Record], Figure]]:
    """Name -> what draws it, of every record that is there."""
    known = {"curve": curve_figure, "plane": plane_figure, "hessian": spectrum_figure}
    return {name: draw for name, draw in known.items() if name in report["records"]}


@styled()
def curve_figure(report: Record) -> Figure:
    """Loss (logarithmic) and error over t, along the curve and the straight line."""
    record = report["records"]["curve"]
    figure = sheet(4.0, columns=2)
    left, right = figure.subplots(1, 2)
    for axes, name in ((left, "loss"), (right, "error")):
        for way, color, marker, label in (("curve", COLORS[0], "o", "Bezier curve"), ("line", COLORS[5], "s", "straight line")):
            values = np.asarray(record[f"{way}_{name}"])
            values = np.maximum(values, TINY) if name == "loss" else values
            axes.plot(record[f"{way}_t"], values, color=color, marker=marker, ms=4, lw=1.8, label=label)
        axes.set_xlabel("t")
        axes.set_ylabel(f"{name} on {report['images']:,} training images")
        axes.grid()
    left.set_yscale("log")
    _plain_ticks(left)
    right.set_ylim(bottom=0)
    left.legend()
    highest = f"highest loss {max(record['curve_loss']):.3g} on the curve, {max(record['line_loss']):.3g} on the line"
    figure.suptitle(f"{_pair(report)}: {highest}")
    return figure


@styled()
def plane_figure(report: Record) -> Figure:
    """Loss (logarithmic colours) and error on the plane through both networks and the bend, with the curve on it."""
    record = report["records"]["plane"]
    figure = sheet(4.6, columns=2)
    for axes, name in zip(figure.subplots(1, 2, sharey=True), ("loss", "error"), strict=True):
        values = np.asarray(record[name], dtype=float)
        if name == "loss":
            drawn = _logarithmic(axes, record, values)
        else:
            drawn = axes.contourf(record["x"], record["y"], values, LEVELS, cmap="cividis")
        bar = figure.colorbar(drawn, ax=axes, pad=0.02)
        if name == "loss":
            bar.set_ticks(_round_ticks(drawn.levels[0], drawn.levels[-1]))
            bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            bar.ax.yaxis.set_minor_formatter(NullFormatter())
        else:
            bar.locator = MaxNLocator(6)
            bar.update_ticks()
        axes.set_title(name)
        axes.set_xlabel("distance along the straight line")
        _points(axes, record["corners"], report)
    figure.axes[0].set_ylabel("distance towards the bend")
    figure.suptitle(_pair(report))
    return figure


@styled()
def spectrum_figure(report: Record) -> Figure:
    """The largest eigenvalues at both networks as stems, with the share of the displacement that lies in their directions."""
    record = report["records"]["hessian"]
    figure = sheet(4.2, columns=2)
    axes = figure.add_subplot()
    every = np.array([record[side]["eigenvalues"] for side in ("first", "second")])
    logarithmic = every.min() > 0 and every.max() > WIDE * every.min()
    for number, (side, color, marker) in enumerate((("first", COLORS[0], "o"), ("second", COLORS[5], "s"))):
        values = record[side]["eigenvalues"]
        place = np.arange(1, len(values) + 1) + 0.16 * (number - 0.5)
        axes.vlines(place, TINY if logarithmic else 0, values, color=color, lw=2)
        axes.plot(place, values, marker, color=color, ms=7, label=f"at {report[side]['short']}")
    if logarithmic:
        axes.set_yscale("log")
        axes.set_ylim(bottom=every.min() / 2)
    else:
        axes.axhline(0, lw=0.8, color=SOFT)
    axes.set_xticks(range(1, len(record["first"]["eigenvalues"]) + 1))
    axes.set_xlabel("rank")
    axes.set_ylabel(f"eigenvalue of the Hessian, {report['curvature_images']:,} images")
    axes.grid()
    axes.legend()
    one, other = record["first"], record["second"]
    axes.set_title(
        f"{_pair(report)}: distance {one['distance']:.3g}; share of the displacement in these directions "
        f"{one['share']:.2g} and {other['share']:.2g}\n(random: {one['share_random']:.1g})"
        + ("" if report["same_start"] else "; not the same start, so the share means little")
    )
    return figure


def _logarithmic(axes: Axes, record: Record, values: np.ndarray) -> Any:
    low = max(float(values.min()), TINY)
    high = max(min(float(values.max()), HIGHEST * low), low * 1.01)
    levels = np.geomspace(low, high, LEVELS)
    clipped = np.clip(values, low, high)
    axes.contour(record["x"], record["y"], clipped, levels=levels[::3], colors="white", linewidths=0.5, alpha=0.6)
    return axes.contourf(record["x"], record["y"], clipped, levels=levels, norm=LogNorm(low, high), cmap="viridis")


def _points(axes: Axes, corners: list[list[float]], report: Record) -> None:
    first, second, bend = (np.asarray(corner) for corner in corners)
    t = np.linspace(0, 1, 60)[:, None]
    way = (1 - t) ** 2 * first + 2 * t * (1 - t) * bend + t**2 * second
    axes.plot(way[:, 0], way[:, 1], color="white", lw=1.6)
    axes.plot(*zip(first, second, strict=True), color="white", lw=1.2, ls="--")
    names = (report["first"]["short"], report["second"]["short"], "bend")
    for point, name, marker in zip((first, second, bend), names, "osX", strict=True):
        axes.plot(*point, marker, color="white", mec="black", ms=8)
        box = {"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.85}
        below = name != "bend"
        axes.annotate(
            _short(name), (point[0], point[1]), xytext=(0, -11 if below else 9), textcoords="offset points", ha="center",
            va="top" if below else "bottom", fontsize=8, color="black", bbox=box,
        )  # fmt: skip


def _plain_ticks(axes: Axes) -> None:
    low, high = axes.get_ylim()
    axes.set_yticks(_round_ticks(low, high))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _round_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within the bounds; powers alone over more than two decades."""
    steps = (1.0,) if high > 100 * low else (1.0, 2.0, 5.0)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
    return ticks or [low, high]


def _pair(report: Record) -> str:
    return f"{report['first']['short']} (t = 0) and {report['second']['short']} (t = 1)"


def _short(name: str) -> str:
    return name if len(name) <= 26 else name[:25] + "…"
