"""A finished step in one line, from its report: what Prefect shows as the message of a state."""

from collections.abc import Mapping, Sequence
from typing import Any

from autosparse.models.specs.grain import number_of
from autosparse.models.specs.run_specs import DENSE, TICKET
from autosparse.tasks.results.arm_reports import opened
from autosparse.tasks.results.measured import metric_of, value_of

ENDS = (DENSE, TICKET)


def said(report: Mapping[str, Any]) -> str:
    """`accuracy 0.871 at density 0.512, 8.1 s`: the figure of the step's kind, and the wall seconds it took."""
    seconds = f"{report['seconds']:.1f} s" if "seconds" in report else ""
    return ", ".join(filter(None, (_figure(report), seconds)))


def _figure(report: Mapping[str, Any]) -> str:
    if "arms" in report and "rows" in report:
        return best([opened(row) for row in report["rows"]], report["arms"])
    if "champion" in report:
        return f"version {report['version']}, held-out Spearman {report['held_out']:.3f}{', champion' if report['champion'] else ''}"
    if "cuts" in report:
        return f"masks at {number_of([report['method']]) if 'method' in report else 'density'} {', '.join(report['cuts'])}"
    if "rows" in report:
        return f"{report['rows']:,} rows of features"
    if report.get("status", "ok") != "ok":
        return f"{report['status']}: {report.get('reason') or ', '.join(report.get('collapsed', ()))}".removesuffix(": ")
    if "trained_on" in report:
        groups = report.get("metrics", {}).items()
        return ", ".join(f"Spearman {found['spearman_pooled']:.3f} on held-out {group}" for group, found in groups)
    if "digest" in report:
        return ", ".join(f"{report[split]:,} {split} examples" for split in ("train", "test") if split in report)
    return _reached(report)


def _reached(report: Mapping[str, Any]) -> str:
    """Of an arm or a round."""
    value, density = value_of(report) if "accuracy" in report or "metric" in report else None, report.get("kept_density")
    density = report.get("density") if density is None else density
    at = "" if density is None else f"density {density:.3g}"
    return at if value is None else f"{metric_of(report).title} {value:.4g}{f' at {at}' if at else ''}"


def best(rows: Sequence[Mapping[str, Any]], arms: int) -> str:
    """How many arms there are, and the best method of the first target at the lowest density that was asked for; `rows` are opened."""
    named = [row for row in rows if row["method"] not in ENDS and not row["control"] and row["density"]]
    found = [row for row in named if row["mean"] is not None]
    if not found:
        return f"{arms} arm{'' if arms == 1 else 's'}"
    first = [row for row in found if (row["target"], row["dataset"]) == (found[0]["target"], found[0]["dataset"])]
    lowest = min(row["density"] for row in first)
    top = max((row for row in first if row["density"] == lowest), key=lambda row: metric_of(row).sign * row["mean"])
    where = f"{top['method']} on {top['target']} at {number_of([top['method']])} {lowest:g}"
    return f"{arms} arm{'' if arms == 1 else 's'}; best: {metric_of(top).title} {top['mean']:.4g} by {where}"
