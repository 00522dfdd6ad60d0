"""Arm reports as result rows: mean, spread and n over seeds, and how people read them."""

import math
import statistics
from typing import Any

from models.errors import DataError
from models.specs import DENSE

Report = dict[str, Any]
Row = dict[str, Any]


def summarize(arms: list[Report]) -> list[Row]:
    """Mean, standard deviation (n - 1) and n over seeds of last-epoch test accuracy, per target x dataset x method x density.

    Arms without an accuracy (collapsed, diverged) are counted in `failed` and stay out of the mean. Raises DataError when arms
    of one target and data set were not made under one protocol.
    """
    _check_protocols(arms)
    cells: dict[tuple[Any, ...], list[Report]] = {}
    for arm in arms:
        cells.setdefault((arm["target"], arm["dataset"], arm["method"], arm["density"]), []).append(arm)
    rows = []
    for (target, dataset, method, density), members in sorted(cells.items(), key=lambda item: (*item[0][:2], -item[0][3], item[0][2])):
        found = [arm["accuracy"] for arm in members if arm["accuracy"] is not None]
        rows.append(
            {
                "target": target,
                "dataset": dataset,
                "method": method,
                "density": density,
                "kept_density": statistics.fmean(arm["kept_density"] for arm in members),
                "effective_density": _mean([arm.get("effective_density") for arm in members]),
                "mean": _mean(found),
                "std": statistics.stdev(found) if len(found) > 1 else None,
                "n": len(found),
                "failed": len(members) - len(found),
            }
        )
    return rows


def metric_name(row: Row) -> str:
    """The name of a row's mean as a metric of MLflow, which refuses the `+` of controls."""
    name = f"accuracy/{row['target']}/{row['method'].replace('+', '/')}"
    return name if row["method"] == DENSE else f"{name}/density-{row['density']:g}"


def markdown_table(rows: list[Row]) -> str:
    """The table as people read it: one line per target and method, one column per density, mean +- std (n)."""
    densities = sorted({row["density"] for row in rows if row["method"] != DENSE}, reverse=True)
    head = ["target", "dataset", "method", *(f"{density:g}" for density in densities)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for target, dataset, method in dict.fromkeys((row["target"], row["dataset"], row["method"]) for row in rows):
        cells = {row["density"]: cell(row) for row in rows if (row["target"], row["dataset"], row["method"]) == (target, dataset, method)}
        shown = [cells.get(1.0, "")] * len(densities) if method == DENSE else [cells.get(density, "") for density in densities]
        lines.append(f"| {target} | {dataset} | {method} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def cell(row: Row) -> str:
    """`.623 +- .004 (n=3)`, or what went wrong."""
    if row["mean"] is None:
        return "collapsed"
    spread = f" ± {row['std']:.3f}" if row["std"] is not None and math.isfinite(row["std"]) else ""
    return f"{row['mean']:.3f}{spread} (n={row['n']})"


def _mean(values: list[float | None]) -> float | None:
    """The mean of what is there, None where there is nothing."""
    found = [value for value in values if value is not None]
    return statistics.fmean(found) if found else None


def _check_protocols(arms: list[Report]) -> None:
    """Raise DataError where a part of the protocol has two values in one table; reports that say nothing of it do not differ."""
    seen: dict[tuple[str, str, str], dict[str, str]] = {}
    for arm in arms:
        parts = {**(arm.get("protocol") or {}), "data_digest": arm.get("data_digest")}
        for part, value in parts.items():
            if value is not None:
                seen.setdefault((arm["target"], arm["dataset"], part), {}).setdefault(value, f"{arm['method']} seed {arm['seed']}")
    differ: dict[tuple[str, str], list[str]] = {}
    for (target, dataset, part), values in seen.items():
        if len(values) > 1:
            differ.setdefault((target, dataset), []).append(f"{part} {', '.join(f'{value} ({who})' for value, who in values.items())}")
    for (target, dataset), parts in differ.items():
        raise DataError(f"protocol: arms of {target} on {dataset} differ in {'; '.join(parts)}; allowed: one protocol in a table")
