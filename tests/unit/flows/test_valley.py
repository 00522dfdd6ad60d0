"""The body of a comparison on two small trained networks, its pictures and its part of the report page."""

import json
import shutil
from copy import deepcopy
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from autosparse.models.errors import DataError
from autosparse.models.networks.build import build_network
from autosparse.models.probes.hessian import share
from autosparse.models.probes.pair import measure
from autosparse.models.probes.registry import PROBES
from autosparse.models.probes.vectors import flatten, unflatten
from autosparse.models.specs.fanout import ValleySpec
from autosparse.models.specs.run_specs import DataSpec, NetworkSpec, TrainSpec
from autosparse.storage import paths
from autosparse.storage.open_store import open_store
from autosparse.storage.store import Store
from autosparse.tasks.compare_arms import numbers
from autosparse.tasks.report.page import report_page
from autosparse.tasks.report.valley_plots import pictures, spectrum_figure
from autosparse.tasks.results.comparisons import comparison_of
from autosparse.tasks.results.run_view import view_run
from autosparse.tasks.settings import export, load
from autosparse.tasks.worker.probe_pair import PairInputs, batches, durations, probe_pair, trained
from autosparse.tasks.worker.problem import Problem, initial_network, open_problem
from autosparse.tasks.worker.train_network import dump_state
from tests.worker_jobs import job_on

NETWORK = NetworkSpec(name="resnet8", width=2)
DATA = DataSpec(name="digits", train_limit=96, test_limit=16, mean=(0.3,), std=(0.35,))
TRAIN = TrainSpec(epochs=1, batch_size=32, lr=0.1, momentum=0.0, nesterov=False, weight_decay=0.0, schedule="constant")
TINY = ValleySpec(images=64, batch_size=20, steps=4, points=3, size=2, curvature_images=24, k=2, iterations=6)
ARM = {"accuracy": 0.9, "kept_density": 1.0, "seed": 10}


INPUTS = PairInputs(network=NETWORK, data=DATA, train=TRAIN, valley=TINY, seed=10, first="one", second="two")


def measured(store: Store, valley: ValleySpec = TINY) -> dict[str, Any]:
    return probe_pair.__wrapped__(job_on(store), replace(INPUTS, valley=valley))  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two networks that started from the same weights; the second one has seen ten batches, the first five of them. Read only."""
    folder = tmp_path_factory.mktemp("valley")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOSPARSE_HOME", str(folder / "home"))
        export(load())
        return trained_twice(open_store(str(folder / "store")))


@pytest.fixture(scope="module")
def compared(store: Store) -> dict[str, Any]:
    """What the body measures of the two. Read only."""
    return measured(store)


def trained_twice(found: Store) -> Store:
    network = initial_network(NETWORK, open_problem(DATA, None), 10)
    seen = batches(job_on(found), INPUTS, open_problem(DATA, None), 96, 32)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for step in range(10):
        optimizer.zero_grad()
        cross_entropy(network(seen[step % 3][0]), seen[step % 3][1]).backward()
        optimizer.step()
        if step in (4, 9):
            found.write(paths.weights("one" if step == 4 else "two"), dump_state(network))
    return found


def test_every_probe_measures_the_two_networks_of_the_store(store: Store, compared: dict[str, Any]) -> None:
    report = compared
    assert report["failed"] == {} and list(report["records"]) == list(PROBES) == list(report["probe_seconds"])
    assert (report["images"], report["curvature_images"], report["lr_over_batch"]) == (64, 24, 0.1 / 32)
    assert json.loads(json.dumps(report)) == report
    one, two = (build_network(NETWORK, image_shape=(1, 8, 8), num_classes=10, seed=0) for _ in range(2))
    for network, step in ((one, "one"), (two, "two")):
        network.load_state_dict(trained(job_on(store), INPUTS, images_of(), step).state_dict())
    moved = flatten(two).double() - flatten(one).double()
    hessian = report["records"]["hessian"]
    assert hessian["first"]["distance"] == hessian["second"]["distance"] == pytest.approx(float(moved.norm()), rel=1e-9)
    assert hessian["first"]["share_random"] == pytest.approx(2 / report["parameters"])
    values, vectors = torch.linalg.eigh(hessian_matrix(one.eval(), *batches(job_on(store), INPUTS, images_of(), 24, 24)[0]).double())
    assert hessian["first"]["eigenvalues"][0] == pytest.approx(float(values[-1]), rel=0.05)
    assert 0 < hessian["first"]["share"] <= 1 and share(vectors.T, moved) == pytest.approx(1)
    assert report["records"]["norms"]["first"] != report["records"]["norms"]["second"]


def hessian_matrix(network: nn.Module, seen: Tensor, labels: Tensor) -> Tensor:
    """Entry by entry, without the operator that is measured."""

    def loss(weights: Tensor) -> Tensor:
        return cross_entropy(functional_call(network, unflatten(weights, network), (seen,)), labels)

    found = torch.autograd.functional.hessian(loss, flatten(network), vectorize=True)
    assert isinstance(found, Tensor)
    return found


def images_of() -> Problem:
    return open_problem(DATA, None)


def test_curve_and_plane_share_their_ends_and_their_bend(store: Store) -> None:
    report = measured(store, replace(TINY, probes=("curve", "plane"), size=3, margin=0.0))
    curve, plane = report["records"]["curve"], report["records"]["plane"]
    assert list(report["records"]) == ["curve", "plane"]
    assert (curve["curve_t"], len(curve["line_loss"])) == ([0.0, 0.5, 1.0], 3)
    assert curve["curve_loss"][0] == curve["line_loss"][0] == pytest.approx(plane["loss"][0][0], rel=1e-4)  # the first network
    assert curve["curve_loss"][2] == curve["line_loss"][2]
    first, second, _ = plane["corners"]
    assert first == [0.0, 0.0] and second[0] == pytest.approx(curve["line_length"], rel=1e-5)
    alone = measured(store, replace(TINY, probes=("plane",), size=3, margin=0.0))["records"]["plane"]
    assert alone == plane  # the same bend, whether or not the curve was asked for


def test_the_same_comparison_gives_the_same_numbers(store: Store, compared: dict[str, Any]) -> None:
    assert measured(store)["records"] == compared["records"]


def test_batches_are_training_images_in_an_order_of_the_seed(store: Store) -> None:
    arrays = images_of()
    found = batches(job_on(store), INPUTS, arrays, 64, 20)
    assert [len(labels) for _, labels in found] == [16, 16, 16, 16]
    again, other = batches(job_on(store), INPUTS, arrays, 64, 20), batches(job_on(store), replace(INPUTS, seed=11), arrays, 64, 20)
    assert all(torch.equal(one[0], two[0]) for one, two in zip(found, again, strict=True))
    assert not all(torch.equal(one[1], two[1]) for one, two in zip(found, other, strict=True))
    head = torch.cat([labels for _, labels in batches(job_on(store), INPUTS, arrays, 24, 20)])
    assert torch.equal(head, torch.cat([labels for _, labels in found])[:24])  # the images of the Hessian are the first of all
    assert sum(len(labels) for _, labels in batches(job_on(store), INPUTS, arrays, 5000, 20)) == 96


def test_what_cannot_be_measured_is_said_and_the_rest_goes_on(store: Store, tmp_path: Path) -> None:
    shutil.copytree(store.root, tmp_path / "store")
    store = open_store(str(tmp_path / "store"))
    store.write(paths.weights("two"), store.read(paths.weights("one")))
    report = measured(store)
    assert set(report["failed"]) == {"plane", "hessian"}
    assert "three points on one line" in report["failed"]["plane"] or "finite" in report["failed"]["plane"]
    assert set(report["records"]) == set(PROBES) - {"plane", "hessian"}
    diverged = measured(store, replace(TINY, probes=("curve", "norms"), lr=1e30, steps=30))
    assert "curve.loss" in diverged["failed"]["curve"] and list(diverged["records"]) == ["norms"]


def test_weights_of_another_network_are_refused_in_one_line(store: Store) -> None:
    other = replace(INPUTS, network=replace(NETWORK, width=4))
    with pytest.raises(DataError, match="not the weights of resnet8") as refused:
        probe_pair.__wrapped__(job_on(store), other)  # type: ignore[attr-defined]
    assert "\n" not in str(refused.value)


def test_a_probe_that_is_not_known_by_name_runs_through_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    pair: Any = SimpleNamespace(probe=lambda name: {"asked": name})
    monkeypatch.setitem(PROBES, "new", PROBES["norms"])
    told: list[str] = []
    records, failed = measure(pair, (), told.append)
    assert records["new"] == {"asked": "new"} and failed == {} and told == list(PROBES)


def test_durations() -> None:
    assert durations({"a": 1.0, "b": 3.5}, 4.0) == {"a": 2.5, "b": 0.5}


def whole(compared: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A report as the task stores it."""
    sides = {side: {**ARM, "short": short, "text": f"t/{short}#10"} for side, short in (("first", "dense"), ("second", "grda(c=0.02)"))}
    return {**deepcopy(compared), **sides, "status": "ok", "target": "lenet300-100", "same_start": True, "same_seed": True, **changes}


def test_numbers_for_mlflow_are_single_and_named_by_probe(compared: dict[str, Any]) -> None:
    report = whole(compared)
    found = numbers(report)
    assert found["hessian/second/share"] == report["records"]["hessian"]["second"]["share"]
    assert found["curve/line_loss_max"] == max(report["records"]["curve"]["line_loss"])
    assert found["lr_over_batch"] == 0.1 / 32
    assert all(isinstance(value, float) for value in found.values()) and not any("eigenvalues" in name for name in found)


def test_pictures_have_content_and_the_same_numbers_give_the_same_file(compared: dict[str, Any]) -> None:
    report = whole(compared)
    drawn = pictures(report, "png")
    assert list(drawn) == ["curve", "plane", "hessian"]
    for content in drawn.values():
        pixels = imread(BytesIO(content))
        assert pixels.shape[1] > 1000 and len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 50
    vectors = pictures(report, "svg")
    assert vectors == pictures(report, "svg")
    assert all(content.startswith(b"<?xml") and len(content) > 10_000 for content in vectors.values())
    other = whole(compared, same_start=False)
    assert pictures(other, "svg")["hessian"] != vectors["hessian"]  # it says that the share means little
    del report["records"]["plane"]
    assert list(pictures(report, "png")) == ["curve", "hessian"]


def test_eigenvalues_far_apart_are_drawn_on_a_logarithmic_axis() -> None:
    def axes(*values: float) -> Any:
        one = {"distance": 1.0, "share": 0.1, "share_random": 0.01}
        records = {"hessian": {side: {**one, "eigenvalues": [value, 2.0]} for side, value in zip(("first", "second"), values, strict=True)}}
        arms = {side: {"short": side} for side in ("first", "second")}
        return spectrum_figure({"records": records, "curvature_images": 8, "same_start": True, **arms}).axes[0]

    assert axes(9.0, 90_000.0).get_yscale() == "log"
    assert axes(9.0, 90.0).get_yscale() == axes(-9.0, 90_000.0).get_yscale() == "linear"


def test_page_and_view_show_what_was_compared(compared: dict[str, Any], made: SimpleNamespace, tmp_path: Path) -> None:
    run = made.run(tmp_path / "page")
    assert "Valleys" not in report_page(run, made.name)
    key = paths.RunPaths(made.name).comparison("lenet300-100", "dense-1-seed10", "grda-seed10", "abc")
    made.report(run, key, **whole(compared), pictures=[f"{key}/curve.png"])
    made.report(run, f"{key}-2", **whole(compared, status="skipped", reason="t/x#1: it diverged"))
    page = report_page(run, made.name)
    assert 'id="valley"' in page and page.count("The plane through both and the bend") == 1
    assert "Not compared: t/x#1: it diverged." in page and "dense and grda(c=0.02) on lenet300-100, seeds 10 and 10" in page
    seen = {report["status"]: report for report in view_run(run, made.name)["valley"]}
    assert set(seen) == {"ok", "skipped"}
    assert "plane" not in seen["ok"]["records"] and seen["ok"]["records"]["hessian"]["first"]["share"] > 0
    assert seen["ok"]["pictures"] == [run.uri(f"{key}/curve.png")]


def test_arms_that_are_not_there_or_failed_are_refused_before_anything_starts(made: SimpleNamespace, tmp_path: Path) -> None:
    run, spec, name = made.run(tmp_path / "arms"), made.spec(), paths.RunPaths(made.name)
    [found] = comparison_of(spec, run, name, "dense", "snip@0.1", seed=11, valley=spec.valley)
    assert found.title == "valley of lenet300-100: dense seed 11 and snip@0.1 seed 11"
    with pytest.raises(DataError, match="magnitude@0.02#11 of made cannot be compared: it diverged"):
        comparison_of(spec, run, name, "dense", "magnitude@0.02", seed=11, valley=spec.valley)
    key = paths.report(name.arm("lenet300-100", 10, "snip", 0.1))
    run.write_json(key, run.read_json(key) | {"compacted": {"parameters": {"before": 2, "after": 1}, "mask": "m"}})
    with pytest.raises(DataError, match=r"snip@0.1#10 of made cannot be compared: it was trained as a smaller network \(fanout.compact\)"):
        comparison_of(spec, run, name, "dense", "snip@0.1", seed=None, valley=spec.valley)
    run.write_json(key, run.read_json(key) | {"compacted": {"reason": "no path", "mask": "m"}})
    assert comparison_of(spec, run, name, "dense", "snip@0.1", seed=None, valley=spec.valley)
    run.delete(name.arm("lenet300-100", 10, "snip", 0.1))
    with pytest.raises(DataError, match="snip@0.1#10 of made cannot be compared: it is not finished"):
        comparison_of(spec, run, name, "dense", "snip@0.1", seed=None, valley=spec.valley)
