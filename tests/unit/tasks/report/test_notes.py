"""What stands on the pages of MLflow: every kind of step says what it did, and no description is too long."""

from typing import Any

import pytest

from autosparse.flows.recipes import recipe
from autosparse.tasks.report.model_card import model_card
from autosparse.tasks.report.notes import failure_note, run_note, step_note

FIGURES = {"spearman_pooled": 0.51234, "spearman_within_layer": 0.4, "mse": 0.1, "label_variance": 0.2}
FITTED = {"kind": "mlp", "parameters": 1500, "losses": [0.2, 0.1], "metrics": {"seeds": {**FIGURES, "baselines": {"abs_weight": FIGURES}}}}
STEPS: dict[str, tuple[dict[str, Any], str]] = {
    "round": (
        {"round": 1, "source": "resnet8", "seed": 0, "density": 0.5, "accuracy": 0.75, "density_after": 0.25},
        "Round 1 of resnet8, seed 0: trained at density 0.5, accuracy 0.7500; then cut to 0.25.\n\n"
        "![layer_densities.png](get-artifact?path=layer_densities.png&run_uuid={run})",
    ),
    "features": (
        {"uri": "/x", "rows": 50200, "sources": 1, "digest": "abc"},
        "50,200 rows, one per prunable weight of 1 source networks and seeds: its initial value and gradient, and the rounds it survived. "
        "Digest abc.",
    ),
    "registration": (
        {"version": "3", "held_out": 0.5, "champion": True, "metrics": {}},
        "[Version 3](#/models/autosparse-scorer/versions/3?workflowType=machine_learning) of the scorer: held-out 0.5000, the champion.",
    ),
    "scoring": (
        {"weights": 1000, "target": "vgg", "seed": 10, "method": "snip", "cuts": {"0.1": {"kept": 100}}},
        "1,000 weights of vgg, seed 10, scored by snip; cut at 0.1 (100 kept).",
    ),
    "arm": (
        {
            **{"target": "vgg", "dataset": "digits", "seed": 10, "method": "snip", "density": 0.1},
            **{"status": "ok", "accuracy": 0.5, "kept_density": 0.1},
        },
        "vgg on digits, seed 10, by snip at density 0.1: ok, accuracy 0.5000, 0.1 of the weights kept.",
    ),
    "an arm that was never trained": (
        {"target": "vgg", "dataset": "d", "seed": 1, "method": "gdp", "density": None, "status": "collapsed", "accuracy": None},
        "vgg on d, seed 1, by gdp: collapsed.",
    ),
    "data": (
        {"train": 512, "test": 128, "classes": ["a", "b"], "digest": "d"},
        "512 training and 128 test examples, 2 classes. Digest d.",
    ),
    "summary": ({"arms": 3, "rows": []}, "Tables, pictures and the report page of 3 arms: they lie with the whole run, below summary."),
    "a report of an earlier version, which says less": ({"uri": "/x", "rows": 5}, ""),
    "nothing that is known": ({"seconds": 1.0}, ""),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_says_what_it_did(step: str) -> None:
    report, said = STEPS[step]
    assert step_note(report) == said


def test_a_fit_has_its_figures_beside_plain_formulas() -> None:
    lines = step_note(FITTED).splitlines()
    assert lines[0] == "A scorer (mlp), fitted in 2 epochs, beside plain formulas:"
    assert lines[-2:] == ["| seeds | scorer (mlp) | 0.5123 | 0.4 | 0.1 | 0.2 |", "| seeds | abs_weight | 0.5123 | 0.4 | 0.1 | 0.2 |"]


def test_a_failed_step_has_its_error() -> None:
    assert failure_note(ValueError("no room")) == "Failed: ValueError: no room"


def row(method: str, density: float) -> dict[str, Any]:
    known = {"target": "lenet300-100", "dataset": "digits", "method": method, "control": None, "density": density, "kept_density": density}
    return {**known, "mean": 0.445, "std": None, "n": 1, "failed": 0}


def test_a_run_says_what_it_is_and_later_what_came_out() -> None:
    spec = recipe("smoke")
    before = run_note(spec, "first", prefect=None)
    assert "| learns from | lenet300-100 on digits, seeds 0, 2 IRP rounds down to 0.1 |" in before
    assert before.startswith("`autosparse show first`\n\n")
    after = run_note(spec, "first", prefect="http://p/runs/1", rows=[row("scorer", 0.1)], command="autosparse run --recipe smoke")
    assert "made by `autosparse run --recipe smoke`" in after
    assert "| lenet300-100 | digits | scorer | 0.445 (n=1) |" in after
    assert "![summary/accuracy_density.png](get-artifact?path=summary/accuracy_density.png&run_uuid={run})" in after
    assert (
        "[report page](#/experiments/{experiment}/runs/{run}/artifacts/summary/report.html?workflowType=machine_learning) · [Prefect run](http://p/runs/1)"
        in after
    )


def test_a_long_table_ends_with_a_whole_line_and_the_description_is_one_that_mlflow_takes() -> None:
    rows = [row(f"method_number_{number}", density) for number in range(200) for density in (0.5, 0.1)]
    note = run_note(recipe("smoke"), "first", prefect=None, rows=rows)
    assert len(note) < 8000
    table = note[note.index("| target |") : note.index("\n\nThe rest is in `summary/summary.md`.")]
    assert all(line.endswith("|") and line.count("|") == 6 for line in table.splitlines())


def test_a_model_card_has_what_a_person_asks_first() -> None:
    card = {"data": "digits", "trained_on": {"sources": ["lenet300-100"]}, "dataset": {"rows": 50200}, "scorer": {"features": ["weight"]}}
    said = model_card("first", recipe("smoke"), card, FITTED)
    for line in (
        "| kind | mlp, 1500 parameters, cut by paths |",
        "| learned | growth of 50,200 weights |",
        "| from | lenet300-100 on digits, 2 IRP rounds down to density 0.1 |",
        "| seeds | scorer (mlp) | 0.5123 | 0.4 | 0.1 | 0.2 |",
        "    mlflow models serve -m models:/autosparse-scorer@champion --env-manager local",
    ):
        assert line in said.splitlines()


def test_a_run_without_sources_learns_nothing_and_says_where_it_prunes() -> None:
    note, other = (run_note(recipe(name), "first", prefect=None) for name in ("compare", "smoke"))
    assert "learns from" in other and "| scorer |" in other
    assert "learns from" not in note and "scorer" not in note
    assert (
        "| prunes | resnet8-w16 on digits by narrow(cost=weights), random, magnitude, snip, grasp, synflow at densities 0.1, 0.02" in note
    )
