"""Opened arm reports as result rows: mean, spread and n over seeds, and how people read them."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from autosparse.models.errors import DataError
from autosparse.models.methods.names import family
from autosparse.models.specs.grain import number_of
from autosparse.models.specs.run_specs import DENSE
from autosparse.storage.paths import density_part, method_key
from autosparse.tasks.results.arm_reports import Report, name_of
from autosparse.tasks.results.markdown import markdown
from autosparse.tasks.results.measured import metric_among, metric_of, stored, title_of, value_of

Row = dict[str, Any]
Curve = list[tuple[float, float, float]]
FIGURES = (  # of an arm's report; a row has the mean of those that are there
    *("effective_density", "density_all", "density_own", "expected_density", "inference_macs", "training_macs"),
    *("training_seconds", "inference_seconds", "images_per_second", "peak_memory_bytes"),
)


def summarize(arms: list[Report]) -> list[Row]:
    """Mean, standard deviation (n - 1) and n over seeds of the last epoch's test metric, per target x dataset x method x control x density.

    Arms without a value (collapsed, diverged) are counted in `failed` and stay out of the mean. Raises DataError when arms
    of one target and data set were not made under one protocol.
    """
    _check_protocols(arms)
    cells: dict[tuple[Any, ...], list[Report]] = {}
    for arm in arms:
        cells.setdefault((arm["target"], arm["dataset"], arm["method"], arm["control"], arm["density"]), []).append(arm)
    metrics = {
        place: metric_among(arm for arm in arms if (arm["target"], arm["dataset"]) == place) for place in {cell[:2] for cell in cells}
    }
    return sorted(({**_row(cell, members), **stored(metrics[cell[:2]])} for cell, members in cells.items()), key=_place)


def _row(cell: tuple[Any, ...], members: list[Report]) -> Row:
    """The row of one cell: target, dataset, method, control, density that was asked for, None for methods without a target.

    `kept_density` is the density that was achieved. Where arms were trained as smaller networks `compacted` says how many.
    """
    found: list[float] = [value for arm in members if (value := value_of(arm)) is not None]
    return {
        **dict(zip(("target", "dataset", "method", "control", "density"), cell, strict=True)),
        "kept_density": _mean([arm["kept_density"] for arm in members]),
        **{name: _mean([arm.get(name) for arm in members]) for name in FIGURES},
        "mean": _mean(found),
        "std": statistics.stdev(found) if len(found) > 1 else None,
        "n": len(found),
        "failed": len(members) - len(found),
        **({"compacted": compacted} if (compacted := sum(_smaller(arm) for arm in members)) else {}),
    }


def _place(row: Row) -> tuple[Any, ...]:
    """By density that was asked for, falling; then what has none, by method and what it kept."""
    if row["density"] is not None:
        return row["target"], row["dataset"], 0, -row["density"], row["method"], row["control"] or "", 0.0
    return row["target"], row["dataset"], 1, 0.0, family(row["method"]), "", -(row["kept_density"] or 0.0)


def targeted(rows: list[Row]) -> list[Row]:
    """Rows of a density that was asked for, dense among them."""
    return [row for row in rows if row["density"] is not None]


def landed(rows: list[Row]) -> list[Row]:
    """Rows of methods without a density target, which are placed at the density where they landed."""
    return [row for row in rows if row["density"] is None]


def curves(rows: list[Row], control: str | None = None) -> dict[str, Curve]:
    """Method -> (kept density, mean, std or 0) by density, for plots: a curve per method with a target, else per family of levels.

    Of the methods themselves, or of them under one `control`. What failed or kept nothing has no place; dense is a level of its own,
    narrower dense networks have a figure of their own, and neither are among them.
    """
    found: dict[str, Curve] = {}
    for row in rows:
        if row["control"] == control and row["method"] != DENSE and row["mean"] is not None and row["kept_density"]:
            method = row["method"] if row["density"] is not None else family(row["method"])
            found.setdefault(method, []).append((row["kept_density"], row["mean"], row["std"] or 0.0))
    return {method: sorted(points) for method, points in found.items()}


def metric_name(row: Row) -> str:
    """The name of a row's mean as a metric of MLflow, which refuses the `+` of controls and the brackets of settings."""
    name = f"{metric_of(row).name}/{row['target']}/{method_key(row['method'])}" + (f"/{row['control']}" if row["control"] else "")
    return name if row["method"] == DENSE or row["density"] is None else f"{name}/{density_part(row['density'])}"


def markdown_table(rows: list[Row]) -> str:
    """The tables as people read them: a line per target and method and a column per density, then methods without a density target."""
    tables = [_density_table(targeted(rows)), _landed_table(landed(rows)), f"{said}\n" if (said := compacted(rows)) else ""]
    return "\n".join(table for table in tables if table)


def compacted(rows: list[Row]) -> str:
    """The line below a table that names the arms trained as smaller networks; empty where all were trained whole."""
    names = dict.fromkeys(name_of(row) for row in rows if row.get("compacted"))
    return f"Trained as smaller networks, dead channels at zero (fanout.compact): {', '.join(names)}." if names else ""


def _density_table(rows: list[Row]) -> str:
    """One line per target and method, one column per density, mean +- std (n)."""
    if not rows:
        return ""
    densities = sorted({row["density"] for row in rows if row["method"] != DENSE}, reverse=True)
    lines = []
    for target, dataset, method in dict.fromkeys((row["target"], row["dataset"], name_of(row)) for row in rows):
        cells = {row["density"]: cell(row) for row in rows if (row["target"], row["dataset"], name_of(row)) == (target, dataset, method)}
        shown = [cells.get(1.0, "")] * len(densities) if method == DENSE else [cells.get(density, "") for density in densities]
        lines.append([target, dataset, method, *shown])
    return markdown(["target", "dataset", "method", *(headed(rows, density) for density in densities)], lines)


def headed(rows: list[Row], density: float) -> str:
    """The head of a column of what was asked for: `0.05`, `share 0.25` where no row has it as a density."""
    number = number_at(rows, density)
    return f"{density:g}" if number == "density" else f"{number} {density:g}"


def number_at(rows: list[Row], density: float) -> str:
    """What the methods of these rows call that number: density, share, or both."""
    return number_of(row["method"] for row in rows if row["density"] == density)


def _landed_table(rows: list[Row]) -> str:
    """One line per target and level, with the density where it landed."""
    if not rows:
        return ""
    head = ["target", "dataset", "method without a density target", "density", "of all parameters", title_of(rows)]
    shares = ("kept_density", "density_all")
    shown = ([row["target"], row["dataset"], name_of(row), *(share(row[name]) for name in shares), cell(row)] for row in rows)
    return markdown(head, shown)


def share(value: float | None) -> str:
    """A density as people read it."""
    return "-" if value is None else f"{value:.3g}"


def cell(row: Row) -> str:
    """`.623 +- .004 (n=3)`, or what went wrong."""
    if row["mean"] is None:
        return "collapsed" if row["density"] is not None else "failed"
    spread = f" ± {row['std']:.3f}" if row["std"] is not None and math.isfinite(row["std"]) else ""
    return f"{row['mean']:.3f}{spread} (n={row['n']})"


def _smaller(arm: Report) -> bool:
    return "parameters" in (arm.get("compacted") or {})


def _mean(values: Sequence[float | None]) -> float | None:
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
                seen.setdefault((arm["target"], arm["dataset"], part), {}).setdefault(value, f"{name_of(arm)} seed {arm['seed']}")
    differ: dict[tuple[str, str], list[str]] = {}
    for (target, dataset, part), values in seen.items():
        if len(values) > 1:
            differ.setdefault((target, dataset), []).append(f"{part} {', '.join(f'{value} ({who})' for value, who in values.items())}")
    for (target, dataset), parts in differ.items():
        raise DataError(f"protocol: arms of {target} on {dataset} differ in {'; '.join(parts)}; allowed: one protocol in a table")
