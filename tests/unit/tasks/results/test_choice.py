"""Which method to use, on paper: the best mean, how sure the seeds make it, its two lines of Python."""

from typing import Any

import pytest

from autosparse.tasks.results.arm_reports import opened
from autosparse.tasks.results.choice import choices, python_lines

SAME = {"target": "net", "dataset": "digits", "status": "ok"}


def row(method: str, density: float, *accuracies: float, **more: Any) -> list[dict]:
    same = {**SAME, "method": method, "density": density, **more}
    return [opened({**same, "seed": seed, "accuracy": accuracy}) for seed, accuracy in enumerate(accuracies)]


def test_the_best_method_is_neither_ticket_nor_dense_nor_narrow_nor_a_control() -> None:
    rows = row("dense", 1, 0.9) + row("ticket", 0.1, 0.8) + row("narrow(multiply_adds)", 0.1, 0.85) + row("snip+shuffle", 0.1, 0.95)
    (one,) = choices(rows + row("snip", 0.1, 0.7) + row("synflow", 0.1, 0.72))
    assert (one.best, one.value, one.second, one.dense, one.arm) == ("synflow", 0.72, "snip", 0.9, "synflow@0.1")


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ((0.7,), (0.6,), "one seed: it does not tell synflow from snip"),
        ((0.70, 0.71, 0.72), (0.60, 0.61, 0.63), "clearly better than snip"),
        ((0.700, 0.710), (0.699, 0.708), "level with snip"),
        ((0.80, 0.60), (0.60, 0.70), "not clearly better than snip"),
    ],
)
def test_how_sure_it_is(first: tuple[float, ...], second: tuple[float, ...], said: str) -> None:
    (one,) = choices(row("synflow", 0.1, *first) + row("snip", 0.1, *second))
    assert (one.best, one.sure) == ("synflow", said)


def test_alone_it_is_the_only_one_and_nothing_is_chosen_of_nothing() -> None:
    (one,) = choices(row("snip", 0.1, 0.7))
    assert (one.sure, one.over.mean) == ("the only method there is", None)
    assert choices(row("dense", 1, 0.9)) == []


def test_lower_may_be_better() -> None:
    metric = {"metric": {"name": "error", "better": "lower", "unit": "", "point": 0.0}}
    rows = [
        opened({**SAME, "method": method, "density": 0.1, "seed": 0, "metrics": {"error": value}, **metric})
        for method, value in (("snip", 3.0), ("synflow", 2.0))
    ]
    (one,) = choices(rows)
    assert (one.best, one.over.mean) == ("synflow", 1.0)


def test_two_lines_of_python() -> None:
    (one,) = choices(row("snip", 0.1, 0.7))
    assert python_lines(one, "/s/scorer") == [
        'mask = autosparse.prune(model, batches, method="snip", density=0.1)',
        "autosparse.hold(model, mask, optimizer)",
    ]
    (one,) = choices(row("scorer_growth", 0.02, 0.7))
    assert python_lines(one, "/s/scorer")[0].endswith('method=autosparse.scorer("/s/scorer", ahead=True), density=0.02)')
    (one,) = choices(row("grda(c=0.05,mu=0.8)", 0.02, 0.7))
    assert python_lines(one, "/s/scorer") == []


def test_several_targets_are_named() -> None:
    found = choices(row("snip", 0.1, 0.7) + row("snip", 0.1, 0.6, target="other"))
    assert [one.arm for one in found] == ["net/snip@0.1", "other/snip@0.1"]


def test_methods_of_different_costs_are_no_rivals_and_channels_are_taken_out() -> None:
    rows = row("snip", 0.1, 0.9) + row("erk(grain=channels)", 0.1, 0.7) + row("snip(grain=channels)", 0.1, 0.6)
    weights, channels = choices(rows)
    assert (weights.best, weights.second) == ("snip", "")
    assert (channels.best, channels.second, channels.arm) == ("erk(grain=channels)", "snip(grain=channels)", "erk(grain=channels)@0.1")
    assert python_lines(channels, "/s/scorer") == [
        'mask = autosparse.prune(model, batches, method="erk(grain=channels)", density=0.1)',
        "model = autosparse.compact(model, example, mask)",
    ]
