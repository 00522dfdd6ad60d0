"""Means, spread and n on paper, and how they are shown."""

import pytest
from mlflow.utils.validation import _validate_metric_name

from autosparse.flows.recipes import demo
from autosparse.models.errors import DataError
from autosparse.models.specs.fields import override
from autosparse.models.specs.protocol import Protocol
from autosparse.tasks.report.plots import accuracy_density_plot, layer_density_plot
from autosparse.tasks.results.arm_reports import opened
from autosparse.tasks.results.rows import cell, curves, landed, markdown_table, metric_name, number_at, summarize, targeted


def arm(method: str, density: float | None, seed: int, accuracy: float | None) -> dict:
    found = {
        "target": "net",
        "dataset": "digits",
        "method": method,
        "density": density,
        "kept_density": density,
        "seed": seed,
        "accuracy": accuracy,
    }
    return opened(found)


ARMS = [
    arm("snip", 0.1, 1, 0.8),
    arm("snip", 0.1, 2, 0.9),
    arm("snip", 0.1, 3, None),
    arm("snip", 0.02, 1, None),
    arm("dense", 1.0, 1, 0.95),
]


def test_mean_std_and_n_over_seeds() -> None:
    rows = {(row["method"], row["density"]): row for row in summarize(ARMS)}
    found = rows["snip", 0.1]
    assert found["mean"] == pytest.approx(0.85)
    assert found["std"] == pytest.approx(0.0707106781)  # sqrt((.05^2 + .05^2) / 1)
    assert (found["n"], found["failed"]) == (2, 1)
    assert rows["snip", 0.02]["mean"] is None
    assert rows["dense", 1.0]["std"] is None


def test_cells() -> None:
    rows = {(row["method"], row["density"]): row for row in summarize(ARMS)}
    assert cell(rows["snip", 0.1]) == "0.850 ± 0.071 (n=2)"
    assert cell(rows["snip", 0.02]) == "collapsed"
    assert cell(rows["dense", 1.0]) == "0.950 (n=1)"


def test_markdown_has_a_line_per_method_and_a_column_per_density() -> None:
    assert markdown_table(summarize(ARMS)).splitlines() == [
        "| target | dataset | method | 0.1 | 0.02 |",
        "|---|---|---|---|---|",
        "| net | digits | dense | 0.950 (n=1) | 0.950 (n=1) |",
        "| net | digits | snip | 0.850 ± 0.071 (n=2) | collapsed |",
    ]


def test_the_same_rows_give_the_same_svg() -> None:
    rows = summarize(ARMS)
    assert accuracy_density_plot(rows, "svg") == accuracy_density_plot(rows, "svg")
    assert accuracy_density_plot(rows, "png").startswith(b"\x89PNG")
    assert layer_density_plot({"a.weight": 1.0, "b.weight": 0.01}, 0.1, "round 0").startswith(b"\x89PNG")


def test_effective_density_is_the_mean_of_what_is_known() -> None:
    arms = [arm("snip", 0.1, 1, 0.8) | {"effective_density": 0.04}, arm("snip", 0.1, 2, 0.9) | {"effective_density": 0.06}]
    assert summarize(arms)[0]["effective_density"] == pytest.approx(0.05)
    assert summarize([*arms, arm("snip", 0.1, 3, None)])[0]["effective_density"] == pytest.approx(0.05)
    assert summarize(ARMS)[0]["effective_density"] is None


def test_a_control_has_a_row_a_line_and_a_curve_of_its_own() -> None:
    arms = [arm("snip", 0.1, 1, 0.8), arm("snip+shuffle", 0.1, 1, 0.75), arm("scorer+shuffle", 0.1, 1, None)]
    assert [(row["method"], row["control"], row["mean"]) for row in summarize(arms)] == [
        ("scorer", "shuffle", None),
        ("snip", None, 0.8),
        ("snip", "shuffle", 0.75),
    ]
    assert curves(summarize(arms)) == {"snip": [(0.1, 0.8, 0.0)]}
    assert curves(summarize(arms), "shuffle") == {"snip": [(0.1, 0.75, 0.0)]}
    assert "| net | digits | snip+shuffle | 0.750 (n=1) |" in markdown_table(summarize(arms))
    assert b"snip+shuffle" in accuracy_density_plot(summarize(arms), "svg")


LANDED = [
    arm("snip", 0.1, 1, 0.8),
    arm("dst", 0.1, 1, 0.7) | {"kept_density": 0.12},
    *[arm("grda(mu=0.8)", None, seed, 0.6) | {"kept_density": kept, "density_all": 0.5} for seed, kept in ((1, 0.2), (2, 0.4))],
    arm("grda()", None, 1, 0.65) | {"kept_density": 0.9, "inference_macs": 300.0},
    arm("grda(c=1)", None, 1, None) | {"kept_density": None},
]


def test_methods_without_a_target_stand_where_they_landed() -> None:
    rows = summarize(LANDED)
    assert [(row["method"], row["density"]) for row in targeted(rows)] == [("dst", 0.1), ("snip", 0.1)]
    assert [row["method"] for row in landed(rows)] == ["grda()", "grda(mu=0.8)", "grda(c=1)"]  # by what they kept
    found = {row["method"]: row for row in rows}
    assert found["grda(mu=0.8)"]["kept_density"] == pytest.approx(0.3)
    assert (found["grda(mu=0.8)"]["n"], found["grda(mu=0.8)"]["density_all"]) == (2, 0.5)
    assert found["grda()"]["inference_macs"] == 300.0 and found["snip"]["inference_macs"] is None
    assert (found["grda(c=1)"]["kept_density"], found["grda(c=1)"]["failed"]) == (None, 1)


def test_curves_go_through_what_was_kept_one_for_all_levels_of_a_family() -> None:
    found = curves(summarize([*LANDED, arm("dense", 1.0, 1, 0.9)]))
    assert found["dst"] == [(0.12, 0.7, 0.0)]
    assert [(round(kept, 9), mean) for kept, mean, _ in found["grda"]] == [(0.3, 0.6), (0.9, 0.65)]
    assert set(found) == {"snip", "dst", "grda"}


def test_the_second_table_is_of_methods_without_a_target() -> None:
    first, second = markdown_table(summarize(LANDED)).split("\n\n")
    assert first.splitlines()[0] == "| target | dataset | method | 0.1 |"
    assert second.splitlines() == [
        "| target | dataset | method without a density target | density | of all parameters | accuracy |",
        "|---|---|---|---|---|---|",
        "| net | digits | grda() | 0.9 | - | 0.650 (n=1) |",
        "| net | digits | grda(mu=0.8) | 0.3 | 0.5 | 0.600 ± 0.000 (n=2) |",
        "| net | digits | grda(c=1) | - | - | failed |",
    ]
    assert b"grda" in accuracy_density_plot(summarize(LANDED), "svg")


def protocol(changes: dict | None = None, **more: bool) -> dict[str, str]:
    spec = override(demo(), changes or {})
    return Protocol(data=spec.data, train=spec.fanout.train, scoring=spec.scoring, **more).fields()


def test_arms_trained_as_smaller_networks_stand_in_tables_of_their_own_that_name_them() -> None:
    whole, small = protocol(), protocol(compact=True)
    assert small == whole | {"protocol": small["protocol"], "training": "compacted"} and small["protocol"] != whole["protocol"]
    sizes = {"parameters": {"before": 9, "after": 3}, "multiply_adds": {"before": 9, "after": 3}, "mask": "m"}
    reports = [sizes, sizes, {"reason": "no path", "mask": "m"}, None]
    arms = [one | {"protocol": small, **({"compacted": report} if report else {})} for one, report in zip(ARMS, reports, strict=False)]
    rows = {row["density"]: row for row in summarize(arms)}
    assert rows[0.1]["compacted"] == 2 and "compacted" not in summarize(ARMS)[0]
    table = markdown_table(summarize(arms))
    assert table.endswith("\nTrained as smaller networks, dead channels at zero (fanout.compact): snip.\n")
    assert "fanout.compact" not in markdown_table(summarize(ARMS))
    with pytest.raises(DataError, match="net on digits differ in protocol"):
        summarize([arms[0], ARMS[1] | {"protocol": whole}])


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"fanout.train.epochs": 7}, "train"),
        ({"fanout.train.momentum": 0.5}, "train"),
        ({"data.augment": "none"}, "data"),
        ({"scoring.batches": 2}, "scoring"),
    ],
)
def test_arms_of_two_protocols_make_no_table(changes: dict, part: str) -> None:
    first, second = protocol(), protocol(changes)
    assert [name for name in first if first[name] != second[name]] == ["protocol", part]
    arms = [arm("snip", 0.1, 1, 0.8) | {"protocol": first}, arm("grasp", 0.1, 2, 0.9) | {"protocol": second}]
    with pytest.raises(DataError) as caught:
        summarize(arms)
    assert f"{part} {first[part]} (snip seed 1), {second[part]} (grasp seed 2)" in str(caught.value)
    assert "net on digits" in str(caught.value) and "\n" not in str(caught.value)
    assert len(summarize([arms[0], arms[1] | {"dataset": "other"}])) == 2  # two tables
    assert len(summarize([arms[0], arms[1] | {"protocol": first}])) == 2


def test_a_probe_counts_among_arms_that_look_ahead_alone() -> None:
    probes = [{"scoring.lookahead_steps": steps} for steps in (5, 9)]
    strict = [arm(method, 0.1, 1, 0.8) | {"protocol": protocol(probe)} for method, probe in zip(("snip", "grasp"), probes, strict=True)]
    ahead = [
        arm("growth", 0.1, seed, 0.8) | {"protocol": protocol(probe, looks_ahead=True)} for seed, probe in zip((1, 2), probes, strict=True)
    ]
    assert len(summarize([*strict, ahead[0]])) == 3
    with pytest.raises(DataError, match="differ in lookahead [0-9a-f]{12} \\(growth seed 1\\), [0-9a-f]{12} \\(growth seed 2\\)"):
        summarize([*strict, *ahead])


def test_where_the_images_are_and_how_many_seeds_there_are_is_no_protocol() -> None:
    assert protocol() == protocol({"data.path": "/elsewhere", "fanout.seeds": [8, 9], "fanout.controls": ["shuffle"]})


def test_reports_from_before_the_protocol_are_one_protocol() -> None:
    assert len(summarize(ARMS)) == 3
    assert len(summarize([*ARMS, arm("grasp", 0.1, 1, 0.5) | {"protocol": protocol()}])) == 4


def test_other_images_under_the_same_name_make_no_table() -> None:
    arms = [arm("snip", 0.1, seed, 0.8) | {"data_digest": digest} for seed, digest in ((1, "aa"), (2, "bb"))]
    with pytest.raises(DataError, match="data_digest aa \\(snip seed 1\\), bb \\(snip seed 2\\)"):
        summarize(arms)
    assert summarize([arms[0], arms[1] | {"data_digest": None}])[0]["n"] == 2


def test_names_of_metrics_are_those_that_mlflow_takes() -> None:
    rows = summarize([*ARMS, arm("snip+random_labels", 0.02, 1, 0.5)])
    names = {metric_name(row) for row in rows}
    assert names == {"accuracy/net/dense", "accuracy/net/snip/density-0.1", "accuracy/net/snip/density-0.02"} | {
        "accuracy/net/snip/random_labels/density-0.02"
    }
    for name in names:
        _validate_metric_name(name)


def test_a_column_says_share_where_no_density_was_asked_for() -> None:
    """Of multiply-adds: a criterion and a learned scorer over channels, `narrow`; dense networks and tickets go by the others."""
    grained = "scorer(grain=channels,widths=rates)"
    shares = [arm(method, 0.25, 1, 0.6) for method in ("erk(grain=channels)", grained, "narrow", "ticket")]
    densities = [arm(method, 0.05, 1, 0.6) for method in ("snip", "snip(grain=mixed)", "narrow(cost=weights)", "ticket")]
    both = [arm(method, 0.1, 1, 0.6) for method in ("snip", "snip(grain=channels)", "narrow")]
    rows = summarize([*shares, *densities, *both, arm("dense", 1.0, 1, 0.9)])
    assert [number_at(rows, number) for number in (0.25, 0.05, 0.1, 1.0)] == ["share", "density", "density or share", "density"]
    assert markdown_table(rows).splitlines()[0] == "| target | dataset | method | share 0.25 | density or share 0.1 | 0.05 |"
