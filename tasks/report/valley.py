"""The part of the report page about the minima of two arms: pictures and a few numbers of every comparison."""

from functools import reduce
from typing import Any

from autosparse.storage import reports
from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Store
from autosparse.tasks.report.style import figure_element
from autosparse.tasks.report.valley_plots import figures
from autosparse.tasks.results.record import RunRecord

TITLES = {"curve": "Along the curve and the straight line", "plane": "The plane through both and the bend", "hessian": "Spectrum"}
EACH = (
    ("test accuracy", "", ()),
    ("largest eigenvalue", "hessian", ("eigenvalues", 0)),
    ("share of the displacement in the top directions", "hessian", ("share",)),
    ("noise against curvature, slope", "noise", ("slope",)),
    ("noise against curvature, R²", "noise", ("r2",)),
    ("norm ratio", "norms", ("norm_ratio",)),
)


def valleys(store: Store, record: RunRecord) -> list[dict[str, Any]]:
    """One entry per comparison: title, pictures, a table of both networks, lines of text."""
    return [_entry(found) for found in reports.under(store, RunPaths(record.name).valley)]


def _entry(found: dict[str, Any]) -> dict[str, Any]:
    first, second = found["first"], found["second"]
    title = f"{first['short']} and {second['short']} on {found['target']}, seeds {first['seed']} and {second['seed']}"
    entry = {"title": title, "first": first["short"], "second": second["short"], "pictures": [], "rows": [], "lines": []}
    if found["status"] != "ok":
        return entry | {"lines": [f"Not compared: {found['reason']}."]}
    for name, draw in figures(found).items():
        svg = figure_element(draw(found), f"{name} {title}")
        entry["pictures"].append({"title": TITLES[name], "svg": svg, "caption": ""})
    entry["rows"] = [row for row in (_row(found, *each) for each in EACH) if row]
    return entry | {"lines": [*_lines(found), *(f"{probe}: {reason}." for probe, reason in found["failed"].items())]}


def _row(found: dict[str, Any], what: str, probe: str, path: tuple[Any, ...]) -> tuple[str, ...] | None:
    if not probe:
        return (what, *(f"{found[side]['accuracy']:.4f}" for side in ("first", "second")))
    if probe not in found["records"]:
        return None
    values = (reduce(lambda value, key: value[key], path, found["records"][probe][side]) for side in ("first", "second"))
    return (what, *(f"{value:.3g}" for value in values))


def _lines(found: dict[str, Any]) -> list[str]:
    start = "the same start and order of images" if found["same_start"] else "another start or order of images: shares mean little"
    lines = [f"Both had {start}. Noise scale lr/B {found['lr_over_batch']:.3g}."]
    if curve := found["records"].get("curve"):
        lines.append(
            f"Highest loss {curve['curve_loss_max']:.3g} on the curve, {curve['line_loss_max']:.3g} on the straight line; "
            f"highest error {curve['curve_error_max']:.3g} and {curve['line_error_max']:.3g}."
        )
    if hessian := found["records"].get("hessian"):
        lines.append(f"Distance {hessian['first']['distance']:.3g}; share of a random direction {hessian['first']['share_random']:.1g}.")
    return lines
