"""`autosparse run` as a person runs it, to the end, and what is there afterwards."""

import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator
from mlflow.tracking import MlflowClient
from safetensors.torch import load_file

from autosparse.storage import reports
from autosparse.storage.mask_files import load_mask
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths, method_key
from autosparse.tasks.results.costs import COINS, deployed_costs
from autosparse.tasks.results.run_view import ARM_FIELDS
from tests.pipeline.command_line import CHANGES, METHOD, OUTSIDE, cli

pytestmark = pytest.mark.services
SCHEMAS = Path(__file__).parents[2] / "docs/schemas"
Typed = Callable[..., subprocess.CompletedProcess[str]]

WEIGHTS = 36 + 2 * 144 + 288 + 576 + 32 + 1152 + 2304 + 128 + 160  # of a ResNet-8 of width 4 on one channel and ten classes


def test_show_has_every_part_of_the_run(whole: tuple[Path, dict], typed: Typed) -> None:
    home, found = whole
    assert json.loads(typed("show", found["name"], "--json", AUTOSPARSE_HOME=str(home)).stdout) == found
    assert found["name"] == f"run-{found['fingerprint']}"
    assert [row["round"] for row in found["rounds"]] == [0, 1]
    assert found["rounds"][0]["density"] == 1.0
    assert all(0.1 < row["accuracy"] <= 1 and row["seconds"] > 0 for row in found["rounds"])
    assert found["dataset"]["rows"] == WEIGHTS
    assert len(found["dataset"]["digest"]) == 32
    assert found["scorer"]["version"] == "1"
    assert found["scorer"]["metrics"]["layers"]["rows"] > 0
    arms = {(arm["method"], arm["density"]): arm for arm in found["arms"]}
    assert set(arms) == {("dense", 1.0), ("scorer", 0.1), ("scorer_growth", 0.1), (METHOD, None), (OUTSIDE[0], 0.1), (OUTSIDE[1], None)}
    assert all(set(arm) == {*ARM_FIELDS, "deployed"} and arm["status"] == "ok" for arm in found["arms"])
    assert arms["dense", 1.0]["kept_density"] == 1.0
    assert arms["scorer", 0.1]["kept_density"] == round(0.1 * WEIGHTS) / WEIGHTS
    assert arms[OUTSIDE[0], 0.1]["kept_density"] == round(0.1 * WEIGHTS) / WEIGHTS
    assert len(found["summary"]) == 6
    assert found["ids"]["prefect_flow_run_id"] and found["ids"]["mlflow_run_id"]


def test_a_plan_has_the_steps_that_the_run_left(whole: tuple[Path, dict], typed: Typed) -> None:
    home, found = whole
    shown = json.loads(typed("plan", found["name"], "--json", AUTOSPARSE_HOME=str(home)).stdout)
    store = open_store(str(home / "storage"))
    assert {step["step"] for step in shown["steps"]} == set(reports.steps(store, RunPaths(found["name"]).root))
    assert (shown["to_do"], shown["trainings"], shown["examples"], shown["seconds"], shown["bytes"]["to_do"]) == (0, 0, 0, 0, 0)
    assert f"{found['name']}: all 17 steps are done" in typed("plan", found["name"], AUTOSPARSE_HOME=str(home)).stdout


def test_every_arm_says_how_dense_it_is_and_what_it_costs(whole: tuple[Path, dict]) -> None:
    _, found = whole
    arms = {arm["method"]: arm for arm in found["arms"]}
    costs = ("inference_macs", "training_macs", "training_seconds", "inference_seconds", "images_per_second", "peak_memory_bytes")
    assert all(arm[name] > 0 for arm in found["arms"] for name in costs)
    assert all(arm["lr_over_batch"] == 0.1 / 128 for arm in found["arms"])
    assert arms["dense"]["training_macs"] == 3 * 512 * arms["dense"]["inference_macs"]  # 512 images, one epoch
    assert arms["scorer"]["training_macs"] == pytest.approx(3 * 512 * arms["scorer"]["inference_macs"])
    assert arms[METHOD]["training_macs"] == arms["dense"]["training_macs"]
    assert 0 < arms[METHOD]["kept_density"] < 1
    assert arms[METHOD]["inference_macs"] < arms["dense"]["inference_macs"]
    row = next(row for row in found["summary"] if row["method"] == METHOD)
    assert (row["density"], row["kept_density"], row["mean"]) == (None, arms[METHOD]["kept_density"], arms[METHOD]["accuracy"])


def test_reports_are_what_their_schemas_say(whole: tuple[Path, dict]) -> None:
    for kind, places in {"arm": "fanout/*/*/*/*", "scoring": "fanout/*/*/*", "round": "irp/*/*"}.items():
        schema = Draft202012Validator(json.loads((SCHEMAS / f"{kind}.json").read_text()))
        found = list(whole[0].glob(f"storage/runs/*/{places}/report.json"))
        assert found, kind
        for report in found:
            assert [f"{report}: {error.json_path}: {error.message}" for error in schema.iter_errors(json.loads(report.read_text()))] == []


def test_every_arm_has_its_place_on_each_frontier(whole: tuple[Path, dict]) -> None:
    home, found = whole
    (frontier,) = found["frontier"]
    names = {"dense", "scorer@0.1", "scorer_growth@0.1", METHOD, f"{OUTSIDE[0]}@0.1", OUTSIDE[1]}
    points = {point["method"] if point["density"] in (None, 1.0) else f"{point['method']}@0.1": point for point in frontier["points"]}
    assert set(points) == names and all(set(point["places"]) == {coin.key for coin in COINS} for point in points.values())
    assert "there is no baseline at equal cost" in frontier["sentence"]
    arms = {arm["method"]: arm for arm in found["arms"]}
    assert points["dense"]["places"]["nonzeros"]["cost"] == WEIGHTS
    assert points["scorer@0.1"]["places"]["nonzeros"]["cost"] <= round(0.1 * WEIGHTS)
    assert points["dense"]["places"]["seconds"]["cost"] == arms["dense"]["training_seconds"]
    assert points["scorer_growth@0.1"]["places"]["seconds"]["cost"] > arms["scorer_growth"]["training_seconds"]
    folder = home / "storage/runs" / found["name"] / "summary"
    assert {"frontier.json", "frontier.md", "frontier.png", "frontier.svg"} <= {path.name for path in folder.iterdir()}


def test_mlflow_has_what_a_method_tells_of_itself(whole: tuple[Path, dict]) -> None:
    home, found = whole
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiment = client.get_experiment_by_name("autosparse")
    assert experiment
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    arms = {arm["method"]: arm for arm in found["arms"]}
    arm = next(run for run in runs if run.info.run_name == f"resnet8-w4 {METHOD} seed 10")
    told = {name for name in arm.data.metrics if name.startswith("method/")}
    assert told
    assert all(len(client.get_metric_history(arm.info.run_id, name)) == 1 for name in told)  # one epoch
    assert {"final_accuracy", "kept_density", "density_all", "training_macs", *deployed_costs(arms[METHOD])} <= set(arm.data.metrics)
    parent = client.get_run(found["ids"]["mlflow_run_id"])
    assert {f"accuracy/resnet8-w4/{method_key(METHOD)}", f"accuracy/resnet8-w4/{method_key(OUTSIDE[1])}"} <= set(parent.data.metrics)
    assert f"accuracy/resnet8-w4/{method_key(OUTSIDE[0])}/density-0.1" in parent.data.metrics


def test_the_report_page_shows_what_nobody_registered(whole: tuple[Path, dict]) -> None:
    home, found = whole
    page = (home / "storage/runs" / found["name"] / "summary/report.html").read_text()
    assert all(f"<td>{method}</td>" in page for method in OUTSIDE)
    assert "<dt>tests.plugins.outside:DECAY</dt><dd>Weight decay c, for tests.</dd>" in page
    assert OUTSIDE[0] in (home / "storage/runs" / found["name"] / "summary/claims.md").read_text()  # the one criterion, and so the best


def test_mlflow_holds_one_parent_and_a_child_per_step_with_the_identity_tags(whole: tuple[Path, dict]) -> None:
    home, found = whole
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiment = client.get_experiment_by_name("autosparse")
    assert experiment
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert [run.info.run_id for run in parents] == [found["ids"]["mlflow_run_id"]]
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        assert run.data.tags["autosparse.run"] == found["name"]
        assert {"autosparse.step_digest", "prefect.flow_run_id", "ray.job_id"} <= set(run.data.tags)
    parent = parents[0]
    assert parent.data.params["irp.rounds"] == "2"
    assert {"spec.json", "summary"} <= {file.path for file in client.list_artifacts(parent.info.run_id)}
    rounds = [run for run in runs if "round 1" in (run.info.run_name or "")]
    history = client.get_metric_history(rounds[0].info.run_id, "accuracy")
    assert [point.step for point in history] == [1, 2]
    champion = client.get_model_version_by_alias("autosparse-scorer", "champion")
    assert champion.tags["dataset_digest"] == found["dataset"]["digest"]
    fits = [run for run in runs if "fit scorer" in (run.info.run_name or "")]
    (used,) = fits[0].inputs.dataset_inputs
    assert used.dataset.digest == found["dataset"]["digest"]
    assert json.loads(used.dataset.profile)["num_rows"] == found["dataset"]["rows"]


def test_pages_of_mlflow_say_what_a_run_is(whole: tuple[Path, dict]) -> None:
    home, found = whole
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiment = client.get_experiment_by_name("autosparse")
    assert experiment and experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    notes = {run.info.run_id: run.data.tags.get("mlflow.note.content", "") for run in runs}
    assert all(notes.values())
    parent = found["ids"]["mlflow_run_id"]
    assert f"autosparse show {found['name']}" in notes[parent]
    assert f"#/experiments/{experiment.experiment_id}/runs/{parent}/artifacts/summary/report.html" in notes[parent]
    assert f"| resnet8-w4 | digits | {OUTSIDE[0]} |" in notes[parent]
    (model,) = client.search_logged_models([experiment.experiment_id])
    figures = {metric.key: metric.value for metric in model.metrics or ()}
    assert figures["held_out"] == pytest.approx(found["scorer"]["held_out"])
    assert {metric.dataset_digest for metric in model.metrics or ()} == {found["dataset"]["digest"]}
    assert model.artifact_location.startswith((home / "mlflow-artifacts").as_uri())  # not in whatever folder the command was typed
    assert model.params["irp.rounds"] == "2" and "abs_weight" in model.tags["mlflow.note.content"]


def test_a_finished_run_comes_out_of_storage_alone(whole: tuple[Path, dict]) -> None:
    home, _ = whole
    done = cli(home, "run", "--recipe", "smoke", *CHANGES)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "[done]" not in done.stdout
    assert done.stdout.count("[cached]") == 17


def test_a_table_and_a_bundle_of_the_run(whole: tuple[Path, dict], tmp_path: Path, typed: Typed) -> None:
    home, found = whole
    rows = json.loads(typed("table", found["name"], "--json", AUTOSPARSE_HOME=str(home)).stdout)["rows"]
    assert {(row["method"], row["density"]): row["mean"] for row in rows} == {
        (arm["method"], arm["density"]): arm["accuracy"] for arm in found["arms"]
    }
    tracks = {row["method"]: row["track"] for row in rows}
    assert [tracks[name] for name in ("scorer", "scorer_growth", METHOD, *OUTSIDE)] == [
        "strict",
        "lookahead",
        "training",
        "strict",
        "training",
    ]
    file = tmp_path / "results.zip"
    assert typed("bundle", found["name"], "--out", str(file), AUTOSPARSE_HOME=str(home)).returncode == 0
    checked = typed("bundle", "--check", str(file), AUTOSPARSE_HOME=str(tmp_path / "another"))
    assert checked.returncode == 0, checked.stdout
    with zipfile.ZipFile(file) as archive:
        text = b"".join(archive.read(name) for name in archive.namelist()).decode()
    assert str(home) not in text and str(Path.home()) not in text and "://" not in text


def test_the_name_of_a_run_belongs_to_one_spec(whole: tuple[Path, dict], typed: Typed) -> None:
    home, found = whole
    done = typed("run", "--recipe", "smoke", "--name", found["name"], AUTOSPARSE_HOME=str(home))
    assert done.returncode == 2
    assert f"error: name: {found['name']!r} holds a run of another spec" in done.stderr


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # images lie in the cache
def test_prune_a_network_of_ones_own_with_the_champion(whole: tuple[Path, dict], tmp_path: Path, typed: Typed) -> None:
    home, found = whole
    masks = []
    for number, scorer in enumerate(("models:/autosparse-scorer@champion", f"{home}/storage/runs/{found['name']}/scorer")):
        out = tmp_path / f"masks-{number}.safetensors"
        arguments = ("--scorer", scorer, "--density", "0.1", "--data", "digits", "--out", str(out), "--min-per-layer", "2")
        command = ("prune", "examples.own_network:build", *arguments)
        done = typed(*command, AUTOSPARSE_HOME=str(home)) if number else cli(home, *command)
        assert done.returncode == 0, done.stderr[-3000:]
        masks.append(load_file(out))
    weights = 1 * 32 * 9 + 32 * 64 * 9 + 64 * 10
    assert sum(int(mask.sum()) for mask in masks[0].values()) == round(0.1 * weights)
    assert all(mask.dtype == torch.bool and int(mask.sum()) >= 2 for mask in masks[0].values())
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])


@pytest.fixture
def copied(whole: tuple[Path, dict], tmp_path: Path) -> Path:
    """The scorer's two files, to be spoilt."""
    home, found = whole
    folder = tmp_path / "scorer"
    folder.mkdir()
    for name in ("scorer.json", "scorer.safetensors"):
        (folder / name).write_bytes((home / "storage/runs" / found["name"] / "scorer" / name).read_bytes())
    return folder


def test_a_scorer_of_another_feature_version_is_refused(copied: Path, tmp_path: Path, typed: Typed) -> None:
    card = json.loads((copied / "scorer.json").read_text())
    card["scorer"]["features_version"] = 99
    (copied / "scorer.json").write_text(json.dumps(card))
    arguments = ("--scorer", str(copied), "--density", "0.1", "--data", "digits", "--out", str(tmp_path / "m.safetensors"))
    done = typed("prune", "examples.own_network:build", *arguments)
    assert done.returncode == 2
    assert "scorer.features_version: 99 is not allowed" in done.stderr
    assert not (tmp_path / "m.safetensors").exists()


def test_masks_in_storage_are_nested_along_the_rounds_and_rounds_begin_again(whole: tuple[Path, dict]) -> None:
    home, found = whole
    source = home / "storage/runs" / found["name"] / "irp/resnet8-w4-seed0"
    first, second = (load_mask((source / f"round-{index:03d}/mask.safetensors").read_bytes()) for index in range(2))
    assert all(not (second[name] & ~first[name]).any() for name in first)
    initial, rewound, trained = (load_file(source / f"{name}.safetensors") for name in ("initial", "rewind", "round-001/weights"))
    assert all(torch.equal(initial[name], rewound[name]) for name in initial)
    assert all(not trained[name][~first[name]].any() for name in first), "a masked weight was trained"
