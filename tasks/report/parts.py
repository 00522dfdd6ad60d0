"""The figures and tables of the report page that need more than result rows: masks, features, layer shapes."""

from typing import Any

import numpy as np

from autosparse.models.arms.arm import split_name
from autosparse.models.errors import AutosparseError
from autosparse.models.masks.mask import overlap
from autosparse.models.specs.grain import number_of
from autosparse.models.specs.run_specs import DENSE, TICKET
from autosparse.storage.feature_table import open_dataset
from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Store
from autosparse.tasks.report.figures import accuracy_figure, layers_figure, overlap_figure, survival_figure
from autosparse.tasks.report.frontier_plot import frontier_picture
from autosparse.tasks.report.survival_map import FEWEST, survival_map
from autosparse.tasks.results.arm_reports import Report, name_of
from autosparse.tasks.results.frontier import Frontier, is_reference
from autosparse.tasks.results.frontier_words import frontier_head, has_irp, sentence
from autosparse.tasks.results.ledger import data_of, macs_cost, target_macs
from autosparse.tasks.results.measured import metric_of, title_of, value_of
from autosparse.tasks.results.record import RunRecord, layer_density_rows, masks_of_one_seed
from autosparse.tasks.results.rows import Row, headed, landed, targeted
from autosparse.tasks.results.verdicts import densities, panels

Picture = dict[str, str]
Found = tuple[list[Any], str]  # what there is to show, and why it is less than all


def curves(record: RunRecord) -> list[Picture]:
    """Accuracy over density, a figure per target and data set."""
    found = []
    for target, dataset in panels(record.rows):
        rows = [row for row in _of(record.rows, target, dataset) if not row["control"]]
        title = f"{target} on {dataset}"
        caption = "Dotted: dense. Dashed: the ticket of a whole IRP." if {DENSE, TICKET} <= {row["method"] for row in rows} else ""
        label = f"{title_of(rows).capitalize()} over density of {title}"
        found.append({"title": title, "svg": accuracy_figure(rows, label), "caption": caption})
    return found


def result_tables(record: RunRecord) -> list[dict[str, Any]]:
    """Per target and data set: a line per method, a cell per density; dense in every column. `landed`: methods without a target."""
    tables = []
    for target, dataset in panels(record.rows):
        everything = _of(record.rows, target, dataset)
        rows = targeted(everything)
        columns = densities(rows) or [1.0]
        cells = {(name_of(row), row["density"]): row for row in rows}
        best = {column: _best(rows, column) for column in columns}
        lines = []
        ordered = sorted(rows, key=lambda row: record.place(row["method"], row["control"]))
        for method in dict.fromkeys(map(name_of, ordered)):
            at = [(column, cells.get((method, 1.0 if method == DENSE else column))) for column in columns]
            lines.append({"method": method, "cells": [{"row": row, "best": row is not None and row is best[column]} for column, row in at]})
        known = {"title": f"{target} on {dataset}", "metric": title_of(everything), "columns": [headed(rows, column) for column in columns]}
        tables.append({**known, "lines": lines, "landed": landed(everything)})
    return tables


def frontier_pictures(found: list[Frontier]) -> list[Picture]:
    """Accuracy over each cost, a figure per target and data set."""
    return [
        {
            "title": title,
            "svg": frontier_picture(one, f"{one.metric.title.capitalize()} over cost of {title}"),
            "caption": "A ring is a point on the frontier."
            + (" The line without colour: dense and narrower dense networks." if one.baseline else ""),
        }
        for one in found
        for title in (f"{one.target} on {one.dataset}",)
    ]


def frontier_tables(found: list[Frontier]) -> list[dict[str, Any]]:
    """Per target and data set: the sentence, and a line per point with its place by every cost."""
    return [
        {
            **{"title": f"{one.target} on {one.dataset}", "sentence": sentence(one), "head": frontier_head(one), "irp": has_irp(one)},
            **{"coins": one.coins, "points": one.points, "metric": one.metric},
        }
        for one in found
    ]


def failed_arms(record: RunRecord) -> list[dict[str, Any]]:
    """Arms without a value, and what happened to them."""
    found = []
    for arm in record.arms:
        if value_of(arm) is None:
            what = arm.get("reason") or f"{arm.get('status', 'failed')}: no weight left in {', '.join(arm.get('collapsed', []))}"
            found.append({**arm, "plain": arm["method"], "method": name_of(arm), "what": what})
    return found


def layer_pictures(store: Store, record: RunRecord) -> Found:
    """Layer densities per method, a figure per target and density."""
    found: list[Picture] = []
    try:
        for target, density in _cuts(record):
            rows = layer_density_rows(store, record, target, density)
            rows = {method: rows[method] for method in sorted(rows, key=record.place)}
            number = number_of(rows)
            title, line = f"{target} at {number} {density:g}", density if number == "density" else None
            found.append(
                {"title": title, "svg": layers_figure(rows, line, f"Layer densities of {title}"), "caption": _layers_caption(rows)}
            )
    except AutosparseError as error:
        return found, str(error)
    return found, "no method has scored a target yet"


def overlap_pictures(store: Store, record: RunRecord) -> Found:
    """Overlap between the methods' masks of one seed, a heat map per target and density."""
    found: list[Picture] = []
    try:
        for target, density in _cuts(record):
            seed, masks = masks_of_one_seed(store, record, target, density)
            methods = list(masks)
            if len(methods) > 1:
                shares = np.array([[overlap(masks[row], masks[column]) for column in methods] for row in methods])
                number = number_of(split_name(method)[0] for method in methods)
                title, chance = f"{target} at {number} {density:g}", f" By chance: {density:g}." if number == "density" else ""
                svg = overlap_figure(methods, shares, f"Overlap of masks of {title}")
                found.append({"title": title, "svg": svg, "caption": f"Masks of seed {seed}.{chance}"})
    except AutosparseError as error:
        return found, str(error)
    return found, "no two methods have cut a target yet"


def survival_pictures(store: Store, record: RunRecord) -> Found:
    """Mean rounds survived over weight and growth gradient, read from the feature data set."""
    if record.features is None:
        return [], "there is no feature data set yet"
    try:
        # by its place in this store: the stored address may be that of another machine
        uri = store.uri(RunPaths(record.name).dataset(record.features["digest"]))
        counted = survival_map(open_dataset(uri, verify=False))
    except AutosparseError as error:
        return [], str(error)
    caption = (
        f"Mean rounds survived (of {counted.rounds}) of {counted.rows:,} weights by what they were at initialization. "
        f"Values beyond the edges are counted in the outermost cells; cells of fewer than {FEWEST} weights are blank."
    )
    title = "Rounds survived over weight and gradient"
    return [{"title": title, "svg": survival_figure(counted, title), "caption": caption}], ""


def macs_tables(store: Store, record: RunRecord) -> Found:
    """Per target: the dense cost, and a line per method with a cost per density; networks that cannot be built here are named."""
    found: list[Any] = []
    missing = []
    for index, target in enumerate(record.spec.fanout.targets):
        data = data_of(record, target.data, index)
        if data is None:
            missing.append(f"{target.label} (its data set has not been read yet)")
            continue
        try:
            macs = target_macs(target.network, record.spec.data_of(target), data)
            columns = sorted((density for density in record.spec.fanout.densities if density < 1), reverse=True)
            cuts = [layer_density_rows(store, record, target.label, density) for density in columns]
        except Exception as error:  # whatever a network of the user's own does away from its home
            missing.append(f"{target.label} ({error})")
            continue
        methods = sorted({method for cut in cuts for method in cut}, key=record.place)
        lines = [
            {"method": method, "cells": [macs_cost(macs, cut[method], record, data) if method in cut else None for cut in cuts]}
            for method in methods
        ]
        found.append({"title": target.label, "densities": columns, "dense": macs_cost(macs, None, record, data), "lines": lines})
    return found, f"the multiply-adds of {', '.join(missing)}" if missing else ""


def digests(data: dict[str, Report]) -> str:
    """The data sets by label and digest, with the sizes of train and test."""
    return ", ".join(f"{label} {report['digest']} ({report['train']:,} + {report['test']:,})" for label, report in data.items())


def _of(rows: list[Row], target: str, dataset: str) -> list[Row]:
    return [row for row in rows if (row["target"], row["dataset"]) == (target, dataset)]


def _best(rows: list[Row], density: float) -> Row | None:
    rivals = [row for row in rows if row["density"] == density and row["mean"] is not None]
    rivals = [row for row in rivals if row["method"] != TICKET and not is_reference(row["method"]) and not row["control"]]
    return max(rivals, key=lambda row: metric_of(row).sign * row["mean"], default=None)


def _cuts(record: RunRecord) -> list[tuple[str, float]]:
    """Targets and the densities or shares below 1 at which something was cut there."""
    found: dict[str, set[float]] = {}
    for report in record.scores:
        found.setdefault(report["target"], set()).update(float(cut) for cut in report["cuts"])
    return [(target, density) for target, cuts in found.items() for density in sorted(cuts, reverse=True) if density < 1]


def _layers_caption(rows: dict[str, dict[str, float]]) -> str:
    empty = {method: sum(not density for density in layers.values()) for method, layers in rows.items()}
    counts = [f"{method} {count} of {len(rows[method])}" for method, count in empty.items() if count]
    return f"Layers left empty: {', '.join(counts)}." if counts else ""
