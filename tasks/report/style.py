"""How every picture looks, and how a figure becomes a file or an element of the report page.

Colours can be told apart by colour-blind readers. On the page they are variables of its style sheet, with the printed colour as
fallback, so that a figure follows light and dark paper.
"""

import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from html import escape
from threading import RLock
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, SOFT, RED = "#1d2126", "#b9bfc6", "#d00000"  # texts, lines and the scorer; of templates/style.css, on light paper
# Okabe and Ito's palette
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D1F", "#5C5C8A")
MARKERS = "osD^vPX*"
VARIABLES = {INK: "--ink", SOFT: "--line", RED: "--scorer"} | {color: f"--series-{n}" for n, color in enumerate(COLORS)}
LOOK: Any = {
    "svg.hashsalt": "autosparse",  # the same numbers give the same file
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.titlesize": 9,
    "figure.titlesize": 9,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": SOFT,
    "grid.alpha": 0.35,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
COLUMN = 4.9  # inches: on a narrow screen a figure of one column is printed at about the size it was drawn for
DPI = 170
MOST_ZOOM = 1.6  # pixels of the page per point of the figure, on a wide screen
LEGEND_MARK = 6  # characters that the mark of a line takes beside its name
_LOCK = RLock()  # matplotlib's settings are those of the process, and rounds end in several threads


@contextmanager
def styled() -> Iterator[None]:
    """Inside, and in functions that it decorates, matplotlib draws as LOOK says."""
    with _LOCK, matplotlib.rc_context(LOOK):
        yield


def sheet(height: float, *, columns: float = 1) -> Figure:
    """An empty figure, `height` in inches."""
    return Figure(figsize=(COLUMN * columns, height), layout="constrained")


def series_styles(methods: list[str]) -> dict[str, tuple[str, str, Any, float]]:
    """Colour, marker, line and width of each method: no two the same before 64 of them."""
    several = [(number, number // len(COLORS)) for number in range(len(methods))]
    return {
        method: (COLORS[number % len(COLORS)], MARKERS[(number + turn) % len(MARKERS)], "-", 1.3)
        for method, (number, turn) in zip(methods, several, strict=True)
    }


def plain(text: str) -> str:
    """The text itself: a dollar sign would start a formula."""
    return text.replace("$", r"\$")


@styled()
def figure_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as a `png` or `svg` file, the same bytes for the same numbers."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


@styled()
def figure_element(figure: Figure, label: str) -> str:
    """The figure as an element of an HTML page: no prolog, no paper, no size of its own, ids that no other figure has.

    Text stays text, in the browser's own font.
    """
    FigureCanvasSVG(figure)
    buffer = io.BytesIO()
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
    with matplotlib.rc_context({"svg.fonttype": "none"}):
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


def legend_columns(labels: Iterable[str], most: int, *, wide: int = 96) -> int:
    """How many columns of a legend fit beside each other into `wide` characters: at most `most`."""
    longest = max(map(len, labels), default=1)
    return max(1, min(most, wide // (longest + LEGEND_MARK)))
