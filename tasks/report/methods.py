"""The parts of the report page about methods that train otherwise: what they are, and what every method's network costs."""

from typing import Any

from autosparse.models.methods.names import family, trains
from autosparse.models.methods.registry import find_method
from autosparse.tasks.results.record import RunRecord
from autosparse.tasks.results.verdicts import panels

FIGURES = ("inference_macs", "training_macs", "training_seconds", "images_per_second", "peak_memory_bytes")


def cost_tables(record: RunRecord) -> list[dict[str, Any]]:
    """Per target and data set: a line per row that says what it cost; rows of older runs say nothing."""
    tables = []
    for target, dataset in panels(record.rows):
        rows = [row for row in record.rows if (row["target"], row["dataset"]) == (target, dataset) and not row["control"]]
        rows = [row for row in rows if any(row[name] is not None for name in FIGURES)]
        if rows:
            lines = sorted(rows, key=lambda row: (record.place(row["method"]), -(row["density"] or 0.0)))
            tables.append({"title": f"{target} on {dataset}", "lines": lines})
    return tables


def cards(record: RunRecord) -> list[dict[str, str]]:
    """Every method of the run that is no mask at step 0, with its card: what is verified and what is a reconstruction."""
    names = dict.fromkeys(family(method) for method in record.spec.fanout.all_methods if trains(method))
    return [{"method": name, "card": find_method(name).card} for name in names]
