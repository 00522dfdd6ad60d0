"""The table of several runs on paper: means, paired tests, Holm, what is bold, what may stand together."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import pytest

from autosparse.flows.recipes import smoke
from autosparse.models.errors import DataError, SpecError
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import fingerprint, override, to_plain
from autosparse.storage import paths
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Store
from autosparse.tasks.results.paired import holm
from autosparse.tasks.results.table import ResultTable, result_table
from autosparse.tasks.results.table_text import csv_text, latex_text, markdown_text, notes

NET = "lenet300-100"
Values = dict[str, dict[float | None, list[float | None]]]
# Against `snip`: random is 9, 10, 11 points behind, magnitude 1, 2, 3 (tests/unit/tasks/results/test_paired.py has the closed form).
THREE: Values = {
    "dense": {1.0: [0.9, 0.9, 0.9]},
    "random": {0.1: [0.71, 0.72, 0.73]},
    "magnitude": {0.1: [0.79, 0.80, 0.81]},
    "snip": {0.1: [0.80, 0.82, 0.84]},
}
P_RANDOM = 1 - math.sqrt(300 / 302)  # t = 10 sqrt(3) with 2 degrees of freedom
P_MAGNITUDE = 1 - math.sqrt(12 / 14)  # t = 2 sqrt(3)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def spec_of(values: Values, seeds: list[int], **changes: Any) -> ExperimentSpec:
    methods = [method for method in values if method not in ("dense", "ticket") and "+" not in method]
    densities = sorted({density for cells in values.values() for density in cells if density and density < 1})
    asked = {"fanout.methods": methods, "fanout.densities": densities or [0.1], "fanout.seeds": seeds, "fanout.dense": "dense" in values}
    return override(smoke(), {**asked, "scoring.lookahead_steps": 3, **changes})


def make(
    store: Store, name: str, values: Values, seeds: list[int], *, also: dict[str, Any] | None = None, **changes: Any
) -> ExperimentSpec:
    """A finished run of which only spec and arms are there; None = diverged. `also` goes into every arm."""
    spec, run = spec_of(values, seeds, **{field.replace("__", "."): value for field, value in changes.items()}), RunPaths(name)
    store.write_json(run.spec, {"spec": to_plain(spec), "fingerprint": fingerprint(spec), "name": name})
    for method, cells in values.items():
        for density, found in cells.items():
            for seed, value in zip(seeds, found, strict=True):
                arm = {"target": NET, "dataset": "digits", "method": method, "density": density, "seed": seed, "accuracy": value}
                arm |= {"kept_density": density if density else 0.3, "status": "diverged" if value is None else "ok"} | (also or {})
                store.write_json(paths.report(run.arm(NET, seed, method.replace("+", "-"), density)), arm)
    return spec


def lines(table: ResultTable) -> dict[str, dict[str, Any]]:
    """Method@density -> the plain row."""
    return {f"{row['method']}@{row['density']}": row for row in table.to_plain()["rows"]}


def bold(table: ResultTable) -> set[str]:
    return {line.name for line in table.lines if line.test and line.test.marked}


def test_holm_by_hand() -> None:
    """In rising order .01 x 3, .03 x 2, .04 x 1; the last may not be smaller than the one before it."""
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {"a": pytest.approx(0.03), "c": pytest.approx(0.06), "b": pytest.approx(0.06)}
    assert holm({"a": 0.7, "b": 0.6}) == {"b": 1.0, "a": 1.0}
    assert holm({}) == {}


def test_means_tests_and_bold_by_hand(store: Store) -> None:
    make(store, "one", THREE, [1, 2, 3])
    table = result_table(store, ["one"])
    found = lines(table)
    assert (found["snip@0.1"]["mean"], found["snip@0.1"]["std"], found["snip@0.1"]["n"]) == (pytest.approx(0.82), pytest.approx(0.02), 3)
    assert found["random@0.1"]["against"] == found["magnitude@0.1"]["against"] == "snip"
    assert found["random@0.1"]["difference"] == pytest.approx(-0.1)
    assert found["random@0.1"]["p_value"] == pytest.approx(P_RANDOM)
    assert found["random@0.1"]["p_holm"] == pytest.approx(2 * P_RANDOM)  # .0066
    assert found["magnitude@0.1"]["p_holm"] == pytest.approx(P_MAGNITUDE)  # .0742
    assert bold(table) == {"snip", "magnitude"}
    assert found["dense@1.0"]["against"] is None


def test_the_markdown_table(store: Store) -> None:
    make(store, "one", THREE, [1, 2, 3])
    text = markdown_text(result_table(store, ["one"])).splitlines()
    assert text[:8] == [
        "Test accuracy, last epoch, lenet300-100 on digits: mean ± standard deviation over seeds, n = 3.",
        "",
        "| method | density 0.1 |",
        "|---|---|",
        "| dense | 0.900 ± 0.000 |",
        "| random | 0.720 ± 0.010 |",
        "| magnitude | **0.800 ± 0.010** |",
        "| snip | **0.820 ± 0.020** |",
    ]
    assert "| random | density 0.1 | snip | -10.00 points [-12.48, -7.52] | 0.0033 | 0.0066 | 3 |" in text
    assert text[-1] == (
        "Bold: the best of its column, and what these seeds do not tell from it: not significantly worse "
        "(paired t-test by seed, p < 0.05 after Holm's correction for its column)."
    )


def test_against_a_chosen_method_bold_is_what_is_better(store: Store) -> None:
    make(store, "one", THREE, [1, 2, 3])
    table = result_table(store, ["one"], against="random")
    found = lines(table)
    assert found["snip@0.1"]["difference"] == pytest.approx(0.1) and found["random@0.1"]["against"] is None
    assert found["snip@0.1"]["p_holm"] == pytest.approx(P_RANDOM)  # magnitude - random is .08 on every seed: no test
    assert found["magnitude@0.1"]["no_test"] == "the same difference on every seed"
    assert bold(table) == {"snip"}
    assert "Not tested: magnitude@0.1 (the same difference on every seed)." in notes(table)
    dense = lines(result_table(store, ["one"], against="dense"))
    assert dense["random@0.1"]["difference"] == pytest.approx(-0.18)
    with pytest.raises(SpecError, match="--against: 'snap' is not known; did you mean 'snip'?"):
        result_table(store, ["one"], against="snap")


def test_a_single_seed_has_no_test_and_nothing_is_bold(store: Store) -> None:
    make(store, "one", {method: {density: found[:1] for density, found in cells.items()} for method, cells in THREE.items()}, [1])
    table = result_table(store, ["one"])
    assert not bold(table) and all(row["p_holm"] is None for row in lines(table).values())
    assert lines(table)["random@0.1"]["no_test"] == "one shared seed"
    assert notes(table) == ["No test (one shared seed), so nothing is bold."]
    make(store, "alone", {"snip": {0.1: [0.8]}}, [1])
    assert notes(result_table(store, ["alone"])) == ["Nothing is compared: no two methods stand in one column."]


def test_equal_values_are_no_difference(store: Store) -> None:
    make(store, "one", {"snip": {0.1: [0.8, 0.9]}, "magnitude": {0.1: [0.8, 0.9]}}, [1, 2])
    table = result_table(store, ["one"])
    assert bold(table) == {"snip", "magnitude"}
    assert {row["p_holm"] for row in lines(table).values()} == {None, 1.0}


def test_where_lower_is_better_the_lowest_is_best(store: Store) -> None:
    def error(value: float) -> dict[str, Any]:
        return {"metric": {"name": "error", "better": "lower", "unit": "m", "point": 0.0}, "metrics": {"error": value}}

    make(store, "one", {"snip": {0.1: [None, None]}, "random": {0.1: [None, None]}}, [1, 2])
    for method, values in (("snip", (1.0, 2.0)), ("random", (4.0, 6.0))):
        for seed, value in zip((1, 2), values, strict=True):
            key = paths.report(RunPaths("one").arm(NET, seed, method, 0.1))
            store.write_json(key, store.read_json(key) | error(value))
    table = result_table(store, ["one"])
    found = lines(table)["random@0.1"]
    assert found["against"] == "snip" and found["difference"] == pytest.approx(-3.5) and found["metric"] == "error"
    assert markdown_text(table).startswith("Test error (m), last epoch")


def test_what_lost_a_seed_is_not_the_best_and_never_bold(store: Store) -> None:
    values: Values = {"snip": {0.1: [0.8, 0.82, 0.84]}, "grasp": {0.1: [0.99, 0.97, None]}, "random": {0.1: [None, None, None]}}
    make(store, "one", values, [1, 2, 3])
    table = result_table(store, ["one"])
    assert lines(table)["grasp@0.1"]["against"] == "snip" and not bold(table) & {"grasp", "random"}
    text = markdown_text(table)
    assert "| grasp | 0.980 ± 0.014 (n=2, 1 failed) |" in text and "| random | collapsed |" in text
    assert "random@0.1 (no shared seed)" in text


def test_runs_of_other_seeds_add_up_and_a_shared_network_counts_once(store: Store) -> None:
    first: Values = {"dense": {1.0: [0.9, 0.9]}, "snip": {0.1: [0.8, 0.82]}}
    second: Values = {"dense": {1.0: [0.9, 0.96]}, "snip": {0.1: [0.82, 0.84]}}
    make(store, "one", first, [1, 2])
    make(store, "two", second, [2, 3])
    table = result_table(store, ["one", "two"])
    found = lines(table)
    assert (found["dense@1.0"]["n"], found["dense@1.0"]["mean"]) == (3, pytest.approx(0.92))
    assert (found["snip@0.1"]["n"], found["snip@0.1"]["mean"]) == (3, pytest.approx(0.82))
    assert set(table.runs) == {"one", "two"} and table.notes == ()


def test_other_values_of_one_arm_are_said(store: Store) -> None:
    make(store, "one", {"snip": {0.1: [0.8, 0.82]}}, [1, 2])
    make(store, "two", {"snip": {0.1: [0.7, 0.84]}}, [2, 3])
    table = result_table(store, ["one", "two"])
    assert lines(table)["snip@0.1"]["mean"] == pytest.approx(0.82)
    assert table.notes == (
        "In several runs with different values, of which the first counts: lenet300-100/snip@0.1#2 (0.82 in one, 0.7 in two).",
    )


def test_runs_of_other_protocols_are_refused_by_field(store: Store) -> None:
    values: Values = {"snip": {0.1: [0.8, 0.82]}, "scorer": {0.1: [0.8, 0.82]}}
    make(store, "one", values, [11, 12])
    for number, (field, value) in enumerate(
        [
            ("fanout.train.epochs", 7),
            ("data.pad", 1),
            ("scoring.batches", 3),
            ("fanout.min_per_layer", 5),
            ("irp.rounds", 3),
            ("scorer.epochs", 9),
        ]
    ):
        other = f"other{number}"
        make(store, other, values, [13, 14], **{field: value})
        with pytest.raises(
            DataError, match=rf"^{field}: .* in one, {value} in {other}; allowed: one protocol in a table, or --over {field}$"
        ):
            result_table(store, ["one", other])
    make(store, "seeds", values, [13, 14], irp__seeds=[5])
    assert lines(result_table(store, ["one", "seeds"]))["scorer@0.1"]["n"] == 4


def test_only_what_decides_the_arms_of_both_runs_is_compared(store: Store) -> None:
    make(store, "one", {"snip": {0.1: [0.8]}}, [11])
    make(store, "two", {"random": {0.1: [0.8]}}, [11], irp__rounds=3, scorer__epochs=9, fanout__job__cpus_per_worker=2)
    assert set(lines(result_table(store, ["one", "two"]))) == {"snip@0.1", "random@0.1"}


def test_a_field_in_which_runs_may_differ_is_a_column(store: Store) -> None:
    fast, slow = ({"snip": {0.1: [0.8, 0.8 + add]}, "random": {0.1: [0.5, 0.5]}} for add in (0.02, 0.04))
    make(store, "fast", fast, [1, 2], fanout__train__lr=0.5)
    make(store, "slow", slow, [1, 2], fanout__train__lr=0.25)
    table = result_table(store, ["fast", "slow"], over=["fanout.train.lr"])
    text = markdown_text(table).splitlines()
    assert text[2] == "| fanout.train.lr | method | density 0.1 |"
    assert text[4].startswith("| 0.5 | snip | **0.810 ± 0.014** |") and text[6].startswith("| 0.25 | snip | **0.820 ± 0.028** |")
    assert table.to_plain()["rows"][0]["fanout.train.lr"] == 0.5
    assert "its column among lines of one fanout.train.lr, and" in notes(table)[0]
    make(store, "long", slow, [1, 2], fanout__train__lr=0.25, fanout__train__epochs=7)
    with pytest.raises(DataError, match=r"^fanout\.train\.epochs: 1 in fast, 7 in long"):
        result_table(store, ["fast", "long"], over=["fanout.train.lr"])
    with pytest.raises(SpecError, match="--over: 'fanout.train.lrr' is not known; did you mean 'fanout.train.lr'?"):
        result_table(store, ["fast"], over=["fanout.train.lrr"])


def test_methods_and_densities_need_no_column(store: Store) -> None:
    make(store, "one", {"snip": {0.1: [0.8, 0.82]}}, [1, 2])
    make(store, "two", {"random": {0.05: [0.5, 0.52]}}, [1, 2])
    table = result_table(store, ["one", "two"], over=["fanout.methods", "fanout.densities"])
    assert markdown_text(table).splitlines()[2] == "| method | density 0.1 | density 0.05 |"


def test_shares_of_a_grain_are_no_densities(store: Store) -> None:
    values: Values = {"snip": {0.25: [0.8, 0.82]}, "snip(grain=channels)": {0.25: [0.7, 0.74]}, "narrow": {0.25: [0.6, 0.6]}}
    make(store, "one", values, [1, 2])
    masks, channels = markdown_text(result_table(store, ["one"])).split("\n\nTest accuracy")[0], result_table(store, ["one"])
    text = markdown_text(channels)
    assert "| method | density 0.25 |" in masks
    assert "| method | share of multiply-adds 0.25 |\n|---|---|\n| snip(grain=channels) |" in text
    assert lines(channels)["narrow@0.25"]["against"] == "snip(grain=channels)" and lines(channels)["snip@0.25"]["density_is"] == "density"


def test_a_ticket_over_channels_has_a_share(store: Store) -> None:
    make(store, "one", {"ticket": {0.25: [0.8]}, "snip(grain=channels)": {0.25: [0.7]}}, [1], irp__grain="channels", fanout__ticket=True)
    assert lines(result_table(store, ["one"]))["ticket@0.25"]["density_is"] == "share of multiply-adds"


def test_tracks_have_a_best_of_their_own(store: Store) -> None:
    values: Values = {
        "snip": {0.1: [0.6, 0.62]},
        "random": {0.1: [0.5, 0.5]},
        "growth": {0.1: [0.8, 0.84]},
        "growth_paths": {0.1: [0.9, 0.96]},
    }
    make(store, "one", values, [1, 2])
    table = result_table(store, ["one"])
    found = lines(table)
    assert (found["random@0.1"]["against"], found["growth@0.1"]["against"]) == ("snip", "growth_paths")
    assert "| track | method | density 0.1 |" in markdown_text(table) and "| lookahead | growth |" in markdown_text(table)
    assert "the best of its column among lines of one track, and" in notes(table)[0]
    assert lines(result_table(store, ["one"], against="snip"))["growth@0.1"]["difference"] == pytest.approx(0.21)


def test_controls_and_methods_without_a_density_target_are_not_compared(store: Store) -> None:
    values: Values = {
        "snip": {0.1: [0.8, 0.82]},
        "random": {0.1: [0.5, 0.54]},
        "snip+shuffle": {0.1: [0.9, 0.9]},
        "gdp(penalty=0.3)": {None: [0.9, 0.8]},
    }
    make(store, "one", values, [1, 2], also={"density_all": 0.4})
    table = result_table(store, ["one"])
    assert {line.name for line in table.lines if line.test} == {"snip", "random"}
    text = markdown_text(table)
    assert "| snip+shuffle | 0.900 ± 0.000 |" in text
    assert "| gdp(penalty=0.3) | 0.3 | 0.4 | 0.850 ± 0.071 |" in text


def test_an_unfinished_run_says_so(store: Store) -> None:
    make(store, "one", THREE, [1, 2, 3])
    store.delete(paths.report(RunPaths("one").arm(NET, 2, "snip", 0.1)))
    assert result_table(store, ["one"]).notes == ("one is not finished: 1 of its 12 arms are not there.",)


def test_latex_is_escaped_and_bold(store: Store) -> None:
    make(store, "one", {"snip": {0.1: [0.8, 0.82]}, "smallest_paths": {0.1: [0.8, 0.9]}}, [1, 2])
    text = latex_text(result_table(store, ["one"]))
    assert text.startswith("% needs \\usepackage{booktabs}\n\\begin{table}\n")
    assert "    \\textbf" not in text and "    smallest\\_paths & \\textbf{0.850 $\\pm$ 0.071} \\\\\n" in text
    assert "p \\textless{} 0.05" in text and "    \\toprule\n    method & density 0.1 \\\\\n    \\midrule\n" in text
    assert text.count("\\begin") == text.count("\\end") and "_" not in text.replace("\\_", "")


def test_csv_has_full_precision(store: Store) -> None:
    make(store, "one", {"snip": {0.1: [0.1, 0.2, 0.5]}, "random": {0.1: [0.1, 0.1, 0.4]}}, [1, 2, 3])
    table = result_table(store, ["one"])
    read = list(csv.DictReader(io.StringIO(csv_text(table))))
    plain = table.to_plain()["rows"]
    assert [row["method"] for row in read] == ["snip", "random"]
    for name in ("mean", "std", "p_holm", "low"):
        assert [row[name] for row in read] == ["" if row[name] is None else repr(row[name]) for row in plain]
    assert [row["bold"] for row in read] == ["true", "true"]


def test_costs_are_shares_of_the_dense_network(store: Store) -> None:
    spec = make(store, "one", THREE, [1, 2, 3])
    for seed in (1, 2, 3):
        for method, density, macs in (("dense", 1.0, 200.0), ("snip", 0.1, 30.0)):
            key = paths.report(RunPaths("one").arm(NET, seed, method, density))
            store.write_json(key, store.read_json(key) | {"inference_macs": macs, "training_macs": macs, "peak_memory_bytes": 3 * 2**20})
    assert spec.fanout.dense
    text = markdown_text(result_table(store, ["one"]), costs=True)
    assert "| snip | density 0.1 | 0.1 | - | - | 0.150 | 0.150 | - | 3 |" in text


def test_no_run_and_an_unknown_run_are_one_line(store: Store) -> None:
    with pytest.raises(SpecError, match="^RUN: 'none' is not allowed"):
        result_table(store, [])
    with pytest.raises(DataError, match="^run: 'nothing' is not in"):
        result_table(store, ["nothing"])
