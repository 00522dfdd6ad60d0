"""Frontiers on the report page, in the files of a run and in what `show` prints, of a run whose costs are chosen by hand."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autosparse.flows import show_command
from autosparse.storage.paths import RunPaths, is_arm, report
from autosparse.storage.store import Store
from autosparse.tasks.report.frontier_plot import frontier_figure, frontier_plot
from autosparse.tasks.report.page import report_page
from autosparse.tasks.results.arm_reports import opened
from autosparse.tasks.results.frontier import frontiers
from autosparse.tasks.results.ledger import ticket_seconds
from autosparse.tasks.results.record import load_record
from autosparse.tasks.results.run_view import view_run
from autosparse.tasks.summarize_arms import _store_frontiers
from tests.unit.tasks.report.test_page import Tags, section

SIZES = {"dense": 10_000.0, 0.1: 1000.0, 0.02: 200.0}  # parameters of the network that is used, by density


def costs(parameters: float) -> dict[str, Any]:
    """Costs that follow the parameters; training takes 100 seconds for 10,000 of them."""
    latency = {batch: {"median": parameters / 1000, "n": 3} for batch in ("1", "32")}
    counted = {"nonzeros": parameters, "parameters": parameters, "multiply_adds": 100 * parameters, "bytes": {"best": 2 * parameters}}
    return {"deployed": {**counted, "latency_ms": latency}, "training_seconds": parameters / 100}


@pytest.fixture
def store(made: SimpleNamespace, tmp_path: Path) -> Store:
    """The run made by hand, with costs in its reports and two narrower dense networks on its seeds."""
    store, run = made.run(tmp_path), RunPaths(made.name)
    for key in store.list(run.fanout):
        found = store.read_json(key) if key.endswith("report.json") else {}
        if found.get("accuracy"):
            size = SIZES["dense"] if found["method"] == "dense" else SIZES[found["density"]]
            store.write_json(key, {**found, **costs(size)})
        elif "cuts" in found:
            store.write_json(key, {**found, "scoring_seconds": 2.0})
    for share, size, accuracy in ((0.3, 1000.0, 0.7), (0.1, 100.0, 0.4)):
        for seed in (10, 11):
            arm = {"target": made.target, "dataset": "digits", "method": "narrow", "density": share, "seed": seed}
            more = {"accuracy": accuracy, "kept_density": 1.0, "seconds": 9.0, "status": "ok", **costs(size)}
            made.report(store, run.arm(made.target, seed, "narrow", share), **arm, **more)
    return store


def of(store: Store, name: str) -> list[Any]:
    record = load_record(store, name)
    return frontiers(record.arms, record.scores, ticket_seconds(record))


def test_the_verdict_stands_at_the_top_and_the_table_in_its_section(made: SimpleNamespace, store: Store) -> None:
    page = report_page(store, made.name)
    top = Tags(page.split("<nav>")[0]).text
    # at 1,000 narrow has .7: scorer .77 +- .01, snip .71, magnitude .6; at 200 it has .4 + .3 * log10(2) = .4903: snip is .1097 above
    # and magnitude .0903 below on the one seed it has; tickets have other seeds
    assert "At equal non-zero weights 1 of 6 sparse networks are above a narrower dense one (best: snip@0.02, +11.0 points;" in top
    found = section(page, "frontier")
    assert "snip@0.02 0.6000 ± 0.0000 n=2 200* +11.0 above 400* +11.0 above" in found
    assert "scorer@0.1 0.7700 ± 0.0141 n=2 1,000 +7.0 unclear p=0.09 2,000" in found  # t = .07 / .01: 1 - 2 atan(7) / pi
    assert "magnitude@0.02 0.4000 n=1 1 failed 200 -9.0 unclear 400" in found
    assert "ticket@0.1 0.8100 ± 0.0141 n=2 1,000* other seeds" in found
    assert found.count("IRP seconds") == 1 and "shuffle" not in found


def test_a_ticket_costs_the_rounds_until_it_was_cut(made: SimpleNamespace, store: Store) -> None:
    # two rounds of 60 seconds: the second one trains at sqrt(.1) = .32 and is cut to .1
    assert ticket_seconds(load_record(store, made.name)) == {(made.target, seed, 0.1): 120.0 for seed in (0, 1)}
    step = RunPaths(made.name).arm(made.target, 0, "ticket", 0.5)
    made.report(store, step, target=made.target, dataset="digits", method="ticket", density=0.5, seed=0, accuracy=0.9, kept_density=0.5)
    assert ticket_seconds(load_record(store, made.name))[made.target, 0, 0.5] == 60.0
    store.delete(RunPaths(made.name).irp)
    assert ticket_seconds(load_record(store, made.name)) == {}


def test_a_run_without_costs_says_so(made: SimpleNamespace, tmp_path: Path) -> None:
    page = report_page(made.run(tmp_path), made.name)
    assert "Left out: no arm says what its network costs." in section(page, "frontier")
    assert 'class="verdict"' not in page


def test_a_panel_for_each_cost_rings_on_the_frontier_and_the_same_bytes(made: SimpleNamespace, store: Store) -> None:
    (found,) = of(store, made.name)
    figure = frontier_figure(found)
    titles = [axes.get_title() for axes in figure.axes if axes.axison]
    assert titles[:5] == ["non-zero weights", "bytes", "parameters stored as dense", "multiply-adds", "training seconds"]
    assert titles[5:] == ["latency of one image, ms", "latency of 32 images, ms"]
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert list(lines["narrow"].get_xdata()) == [100.0, 1000.0, 10_000.0]  # the dense one ends the line
    rings = sorted(tuple(map(float, place)) for ring in figure.axes[0].collections for place in ring.get_offsets())
    assert rings == [(100.0, 0.4), (200.0, 0.6), (1000.0, pytest.approx(0.81)), (10_000.0, pytest.approx(0.91))]
    assert frontier_plot(found, "svg") == frontier_plot(found, "svg") and frontier_plot(found, "png").startswith(b"\x89PNG")


def test_one_cost_alone_and_a_single_point_can_be_drawn(made: SimpleNamespace, store: Store) -> None:
    arm = {"target": "net", "dataset": "digits", "method": "$\\bad", "density": None, "seed": 0, "accuracy": 0.5, "training_seconds": 5.0}
    (found,) = frontiers([opened({**arm, "method": "grda($x_{$=1)"})], [])
    assert [axes.get_title() for axes in frontier_figure(found).axes if axes.axison] == ["training seconds"]
    assert len(frontier_plot(found, "png")) > 1000


def test_the_files_of_a_run_and_what_show_prints(made: SimpleNamespace, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    kept: list[str] = []
    tracker = SimpleNamespace(file=lambda run, name, content: kept.append(name))
    run: Any = SimpleNamespace(store=store, name=made.name, paths=RunPaths(made.name), tracker=tracker, mlflow_run="1")
    record = load_record(store, made.name)
    told = _store_frontiers(run, frontiers(record.arms, record.scores))
    assert kept == [f"summary/frontier.{kind}" for kind in ("json", "md", "png", "svg")]
    stored = json.loads(store.read(run.paths.summary_file("frontier.json")))
    assert stored == told["frontier"] and stored[0]["sentence"].startswith("At equal non-zero weights 1 of 6")
    assert "| snip@0.02 | 0.6000 (n=2) | 200* +11.0 above |" in store.read(run.paths.summary_file("frontier.md")).decode()

    assert view_run(store, made.name)["frontier"] == []  # the summary of this run was not made
    store.write_json(report(run.paths.summary), {"rows": [], "frontier": told["frontier"]})
    show_command.print_frontier(view_run(store, made.name)["frontier"])
    assert "above: snip@0.02" in capsys.readouterr().out
    arms = [key for key in store.list(RunPaths(made.name).fanout) if is_arm(key.removesuffix("/report.json"))]
    assert arms and all("deployed" in arm for arm in view_run(store, made.name)["arms"] if arm["accuracy"])
