"""The metric by which arms are compared: what a report says of it, and how its differences are read.

Reports of image classifications have `accuracy`; others have `metric`, which one counts, and `metrics`, name -> value. A difference is a
gain: above 0 is better, whichever direction of the metric is.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from autosparse.models.training.objective import ACCURACY, Metric


def metric_of(report: Mapping[str, Any]) -> Metric:
    """Of the report of an arm or a round, of a row or of a data set."""
    found = report.get("metric")
    return Metric(**found) if found else ACCURACY


def value_of(report: Mapping[str, Any]) -> float | None:
    """What a network reached by that metric; None where it failed."""
    return report["metrics"].get(report["metric"]["name"]) if report.get("metric") else report.get("accuracy")


def final(report: Mapping[str, Any]) -> dict[str, float]:
    """The value as a metric of MLflow: `final_accuracy`. The report is of a network that was trained to its end."""
    value = value_of(report)
    return {} if value is None else {f"final_{metric_of(report).name}": value}


def metric_among(reports: Iterable[Mapping[str, Any]]) -> Metric:
    """That of several reports of one target and data set: arms that were never trained do not say it."""
    return next((metric_of(report) for report in reports if report.get("metric")), ACCURACY)


def stored(metric: Metric) -> dict[str, Any]:
    """What a row or a record says of it: nothing where it is the accuracy."""
    return {} if metric == ACCURACY else {"metric": metric.to_plain()}


def title_of(reports: Iterable[Mapping[str, Any]]) -> str:
    """The heading of a column with the values of all of them: `value` where they are of several metrics."""
    titles = {metric_of(report).title for report in reports}
    return titles.pop() if len(titles) == 1 else "value" if titles else ACCURACY.title


def axis_of(reports: Iterable[Mapping[str, Any]]) -> str:
    """The label of an axis with the values of all of them."""
    known = list(reports)
    falling = all(metric_of(report).sign < 0 for report in known) and known
    return f"test {title_of(known)}{', lower is better' if falling else ''}"


def gain(metric: Metric, difference: float | None, digits: int = 2) -> str:
    """A difference as people read it: `+0.52 points` of accuracy, `+0.52` of anything else; a dash for none."""
    if difference is None:
        return "-"
    return f"{scaled(metric, difference, digits)} points" if metric == ACCURACY else scaled(metric, difference, digits)


def scaled(metric: Metric, difference: float, digits: int = 1) -> str:
    """The same without a unit: percentage points of accuracy, others as they are, in three digits."""
    return f"{100 * difference:+.{digits}f}" if metric == ACCURACY else f"{difference:+.3g}"
