"""What the drift guard said of each scoring by a learned method, for the summary and the report page."""

from collections.abc import Sequence
from typing import Any

from autosparse.tasks.results.arm_reports import Report, name_of

WORST = 3


def drift_rows(scores: Sequence[Report]) -> list[dict[str, Any]]:
    """A row per target, seed and method: the network it was compared with, the warning or None, the same for a person, and its WORST
    columns, the worst first.

    Reports without a word of the guard (of criteria, of older runs and scorers) have no row.
    """
    return [
        {
            "target": report["target"],
            "seed": report["seed"],
            "method": name_of(report),
            "source": report["drift"]["source"],
            "warning": report["drift"]["warning"],
            "sentence": report["drift"].get("sentence"),
            "worst": report["drift"]["columns"][:WORST],
        }
        for report in scores
        if report.get("drift")
    ]
