"""What a state of Prefect says of a finished step, what a result opens with, and the tags of a run."""

from typing import Any

import pytest

from autosparse.flows.recipes import smoke
from autosparse.models.specs.fields import fingerprint, override
from autosparse.tasks.engine.flow_tags import tags_of
from autosparse.tasks.report.result_artifact import result_markdown
from autosparse.tasks.results.said import best, said

ERROR = {"name": "error", "better": "lower", "unit": "m", "point": 0.0}


@pytest.mark.parametrize(
    ("report", "line"),
    [
        ({"round": 3, "density": 0.512, "accuracy": 0.871, "seconds": 8.1}, "accuracy 0.871 at density 0.512, 8.1 s"),
        (
            {"status": "ok", "density": 0.1, "kept_density": 0.0999, "accuracy": 0.5, "seconds": 2.0},
            "accuracy 0.5 at density 0.0999, 2.0 s",
        ),
        ({"density": 1.0, "metric": ERROR, "metrics": {"error": 1.25}, "seconds": 1.0}, "error (m) 1.25 at density 1, 1.0 s"),
        ({"status": "collapsed", "collapsed": ["fc1", "fc2"], "accuracy": None, "seconds": 0.0}, "collapsed: fc1, fc2, 0.0 s"),
        ({"status": "diverged", "reason": "loss is NaN at step 3", "seconds": 0.5}, "diverged: loss is NaN at step 3, 0.5 s"),
        ({"uri": "x", "digest": "d", "rows": 50200, "seconds": 0.9}, "50,200 rows of features, 0.9 s"),
        ({"digest": "d", "train": 1024, "test": 64, "seconds": 1.0}, "1,024 train examples, 64 test examples, 1.0 s"),
        (
            {"version": "3", "held_out": 0.3576, "champion": True, "metrics": {}, "seconds": 4.0},
            "version 3, held-out Spearman 0.358, champion, 4.0 s",
        ),
        ({"version": "3", "held_out": 0.3576, "champion": False, "metrics": {}}, "version 3, held-out Spearman 0.358"),
        ({"trained_on": {}, "metrics": {"seeds": {"spearman_pooled": 0.5}}, "seconds": 4.0}, "Spearman 0.500 on held-out seeds, 4.0 s"),
        ({"cuts": {"0.1": {}, "0.05": {}}, "seconds": 1.0}, "masks at density 0.1, 0.05, 1.0 s"),
        ({"cuts": {"0.1": {}}, "method": "erk(grain=channels)", "seconds": 1.0}, "masks at share 0.1, 1.0 s"),
    ],
)
def test_a_step_in_a_line(report: dict[str, Any], line: str) -> None:
    assert said(report) == line


def row(method: str, density: float, mean: float | None, **more: Any) -> dict[str, Any]:
    place = {"target": "net", "dataset": "digits", "method": method, "control": None, "density": density}
    return {**place, "kept_density": density, "mean": mean, "std": None, "n": 1, "failed": 0, **more}


def test_the_best_is_of_the_lowest_density_and_no_end_of_the_scale_or_control() -> None:
    rows = [row("dense", 1.0, 0.99), row("ticket", 0.1, 0.98), row("snip", 0.5, 0.9), row("snip", 0.1, 0.6), row("grasp", 0.1, 0.7)]
    rows += [{**row("snip", 0.1, 0.95), "control": "shuffle"}, row("synflow", 0.1, None)]
    assert best(rows, 7) == "7 arms; best: accuracy 0.7 by grasp on net at density 0.1"
    worse = [row("snip", 0.1, 3.0, metric=ERROR), row("grasp", 0.1, 2.0, metric=ERROR)]
    assert best(worse, 2) == "2 arms; best: error (m) 2 by grasp on net at density 0.1"
    assert best([row("dense", 1.0, 0.99)], 1) == "1 arm"


def test_a_result_opens_with_the_verdict_and_the_picture_and_holds_no_data() -> None:
    rows = [row("snip", 0.1, 0.6)]
    text = result_markdown(
        rows, "The scorer leads.", 1, "http://x/plot.png", {"MLflow run": "http://x/run", "Report page": "/s/report.html", "gone": None}
    )
    opening, arms, picture, *_ = text.split("\n\n")
    assert opening == "## The scorer leads."
    assert arms == "1 arm; best: accuracy 0.6 by snip on net at density 0.1."
    assert picture == "![What was reached over density, one line per method](http://x/plot.png)"
    assert text.endswith("- [MLflow run](http://x/run)\n- Report page: `/s/report.html`\n") and "data:" not in text
    assert "![" not in result_markdown(rows, "", 1, None, {})


def test_tags_name_recipe_networks_data_and_fingerprint_once() -> None:
    spec = override(smoke(), {"irp.networks": [{"name": "resnet8", "width": 4}]})
    assert tags_of(spec, "smoke") == [
        *("recipe:smoke", "network:resnet8-w4", "network:lenet300-100", "data:digits"),
        f"spec:{fingerprint(spec)}",
    ]
    assert tags_of(spec, None)[0] == "network:resnet8-w4"
