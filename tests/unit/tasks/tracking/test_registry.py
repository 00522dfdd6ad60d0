"""The registry on a real SQLite store: models that can be ranked, aliases that only a better scorer takes, nothing pickled."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import torch
from mlflow import artifacts
from sklearn.datasets import load_digits

import autosparse
from autosparse.library.scorer import Scorer
from autosparse.library.scorer_files import read_scorer, save_scorer
from autosparse.library.weight_table import weight_table
from autosparse.models.criteria.paths import Paths
from autosparse.models.errors import DataError, SpecError
from autosparse.models.features import FEATURE_NAMES
from autosparse.models.networks.build import build_network
from autosparse.models.scorers.registry import build_scorer
from autosparse.models.specs.run_specs import NetworkSpec
from autosparse.storage.open_store import open_store
from autosparse.tasks import settings
from autosparse.tasks.tracking.registry import Facts, Registry
from autosparse.tasks.tracking.tracker import Tracker, load_scorer_files

TAGS = {"autosparse.run": "test", "prefect.flow_run_id": "1", "ray.job_id": "2"}
NETWORK = {"name": "resnet8", "width": 4, "image_shape": [1, 8, 8], "num_classes": 10}
DENSITY = 0.1
PARAMS = {"density": DENSITY, "network": json.dumps(NETWORK)}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[settings.Settings]:
    patch = pytest.MonkeyPatch()
    patch.setenv("AUTOSPARSE_HOME", str(tmp_path_factory.mktemp("home")))
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found = settings.load()
    settings.export(found)
    yield found
    patch.undo()


@pytest.fixture(scope="module")
def tracker(here: settings.Settings) -> Iterator[Tracker]:
    made = Tracker(here, TAGS)
    with made.closing():
        yield made


@pytest.fixture(scope="module")
def registry(tracker: Tracker, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Three scorers of the digits, one of other data, one of another label; the last cuts by paths."""
    told = (("digits", "growth", 0.5, 100), ("digits", "growth", 0.4, 100), ("digits", "growth", 0.6, 100))
    told += (("my cifar", "growth", 0.2, 9000), ("digits", "survival", 0.9, 50))
    for number, (data, label, figure, rows) in enumerate(told):
        store = open_store(str(tmp_path_factory.mktemp("storage")))
        scorer = build_scorer("mlp", hidden=(4,), seed=number)
        if label == "survival":
            scorer.allocation = Paths(contrast=1.0, contrast_ahead=1.0, blend=0.0)  # type: ignore[assignment]
        save_scorer(store, "scorer", scorer, {"metrics": {}})
        run = tracker.open(f"fit-{number}", f"fit {number}", parent=tracker.open("run", "test"))
        tracker.features(run, {"uri": f"/nowhere/{number}", "digest": f"d{number}", "rows": rows}, "scorer-train")
        files = {name: store.read(f"scorer/{name}") for name in ("scorer.json", "scorer.safetensors")}
        tags = {"data": data, "data_digest": data, "label": label, "held_out": str(figure), "rows": str(rows)}
        facts = Facts(
            tags=tags,
            parameters={"kind": "mlp"},
            metrics={"held_out": figure, "held_out_seeds/spearman_pooled": figure},
            dataset=("features", f"d{number}"),
            card=f"scorer {number}",
        )
        found = tracker.register(run, files, facts)
        assert found == tracker.register(run, files, facts), "the same scorer was registered twice"
        assert found == (str(number + 1), number in (0, 2, 3))
    return Registry(tracker.client)


def test_each_data_and_label_has_a_champion_of_its_own(registry: Registry) -> None:
    assert registry.aliases() == {
        "champion": "4",  # learned from most weights
        "champion-digits-growth": "3",
        "champion-my-cifar-d33644-growth": "4",
        "champion-digits-survival": "5",
    }


def test_an_alias_without_a_holder_goes_to_the_best_of_its_group_and_not_to_the_newest(registry: Registry) -> None:
    registry.client.delete_registered_model_alias("autosparse-scorer", "champion-digits-growth")
    registry._crown("champion-digits-growth", "2")
    assert registry.aliases()["champion-digits-growth"] == "3"


def test_a_worse_scorer_is_promoted_by_force_alone(registry: Registry) -> None:
    worse = (
        r"^--promote: version 2 \(held-out 0\.4000 on digits, 100 rows\) does not beat version 3 \(held-out 0\.6000 on digits, 100 rows\), "
        "which is champion-digits-growth; allowed: a better one, or --force$"
    )
    with pytest.raises(SpecError, match=worse):
        registry.promote("2", "champion-digits-growth")
    assert registry.aliases()["champion-digits-growth"] == "3"
    assert registry.promote("2", "champion-digits-growth", force=True) == "3"
    assert registry.aliases()["champion-digits-growth"] == "2"
    assert registry.promote("3", "champion-digits-growth") == "2"
    assert registry.promote("3", "champion-digits-growth") == "3"  # once more changes nothing
    with pytest.raises(SpecError, match=r"^--promote: '99' is not allowed; allowed: a version of autosparse-scorer: 5, 4, 3, 2, 1$"):
        registry.promote("99", "champion")
    with pytest.raises(
        SpecError, match=r"^--alias: 'champion-digits-survival' is not allowed; allowed: champion or champion-digits-growth "
    ):
        registry.promote("3", "champion-digits-survival")


def test_the_command_lists_and_promotes(
    registry: Registry, here: settings.Settings, typed: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    def said(*arguments: str) -> subprocess.CompletedProcess[str]:
        return typed("scorers", *arguments, AUTOSPARSE_HOME=str(here.home), COLUMNS="250")

    listed = json.loads(said("--json").stdout)
    assert [one["version"] for one in listed] == ["5", "4", "3", "2", "1"]
    assert listed[2] == {
        **{"version": "3", "aliases": ["champion-digits-growth"], "data": "digits", "label": "growth", "sources": None, "kind": None},
        **{"metric": None, "held_out_on": None, "rows": 100, "held_out": 0.6, "run": "test", "date": listed[2]["date"]},
        "address": "models:/autosparse-scorer@champion-digits-growth",
    }
    few = json.loads(said("--json", "--data", "digits", "--label", "survival").stdout)
    assert [one["version"] for one in few] == ["5"]
    table = said().stdout
    assert "models:/autosparse-scorer@champion" in table and "models:/autosparse-scorer/1" in table and "0.6000" in table
    assert said("--data", "mnist").stdout == "no scorer is registered of that data and label\n"
    refused = said("--promote", "1", "--alias", "champion-digits-growth")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --promote: version 1 (held-out 0.5000 on digits, 100 rows) does not beat version 3 ")
    assert refused.stderr.count("\n") == 1
    forced = said("--promote", "1", "--alias", "champion-digits-growth", "--force").stdout
    assert forced == "champion-digits-growth is version 1, before it was version 3\n"
    assert said("--promote", "3", "--alias", "champion-digits-growth").returncode == 0


def test_scorers_are_ranked_by_what_was_held_out(registry: Registry, tracker: Tracker) -> None:
    by_figure = [{"field_name": "metrics.held_out", "ascending": False}]
    found = tracker.client.search_logged_models([tracker.experiment_id], order_by=by_figure)
    assert [model.tags["held_out"] for model in found] == ["0.9", "0.6", "0.5", "0.4", "0.2"]
    digits = tracker.client.search_logged_models(
        [tracker.experiment_id], "tags.label = 'growth' AND tags.data = 'digits'", order_by=by_figure
    )
    assert [model.tags["held_out"] for model in digits] == ["0.6", "0.5", "0.4"]
    best = found[0]
    assert best.status == "READY" and best.params == {"kind": "mlp"} and best.tags["mlflow.note.content"] == "scorer 4"
    assert {(metric.key, metric.dataset_name, metric.dataset_digest) for metric in best.metrics or ()} == {
        ("held_out", "features", "d4"),
        ("held_out_seeds/spearman_pooled", "features", "d4"),
    }
    assert json.loads(best.tags["mlflow.modelVersions"]) == [{"name": "autosparse-scorer", "version": 5}]
    assert registry.versions()[0].description == "scorer 4"
    assert str(registry.client.get_registered_model("autosparse-scorer").description).startswith("Scorers of autosparse")


def test_a_model_that_a_killed_process_left_is_taken_up(
    registry: Registry, tracker: Tracker, here: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tracker.open("fit-left", "fit", parent=tracker.open("run", "test"))
    assert tracker.spool.drain(30)
    run_id = str(tracker.run_id(run))
    left = tracker.client.create_logged_model(tracker.experiment_id, "scorer", run_id)
    assert registry._model(tracker.experiment_id, run_id, Facts(tags={})).model_id == left.model_id
    files = dict(zip(("scorer.json", "scorer.safetensors"), load_scorer_files(here, "models:/autosparse-scorer/3"), strict=True))
    with monkeypatch.context() as patch:
        patch.setattr(registry.client, "log_model_artifacts", away)
        with pytest.raises(ConnectionError):
            registry._log(left, run_id, files, Facts(tags={}))
    registry._log(left, run_id, files, Facts(tags={}))
    assert [one.model_id for one in tracker.client.get_run(run_id).outputs.model_outputs] == [left.model_id]
    tracker.client.delete_logged_model(left.model_id)


def away(*_: object) -> None:
    raise ConnectionError("MLflow was killed at this moment")


def test_files_come_back_by_alias_and_version(registry: Registry, here: settings.Settings) -> None:
    card, weights = load_scorer_files(here, "models:/autosparse-scorer@champion-digits-growth")
    champion, described = read_scorer(card, weights, "champion")
    assert json.loads(card)["scorer"]["kind"] == described["scorer"]["kind"] == "mlp"
    rows = torch.randn(5, len(FEATURE_NAMES))
    assert torch.equal(champion(rows), build_scorer("mlp", hidden=(4,), seed=2)(rows))
    with pytest.raises(DataError, match="models:/autosparse-scorer/99 is not in the registry"):
        load_scorer_files(here, "models:/autosparse-scorer/99")


@pytest.mark.parametrize("version", ["3", "5"])  # one that cuts by its scores, one that cuts by paths
def test_a_loaded_scorer_gives_the_mask_of_prune_without_pickle(version: str, registry: Registry, here: settings.Settings) -> None:
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    table, mask = asked(version, here)
    served = mlflow.pyfunc.load_model(f"models:/autosparse-scorer/{version}")
    found = served.predict(table, params=PARAMS)
    assert mask_of(table, found["keep"].tolist()) == {name: keep.reshape(-1).int().tolist() for name, keep in mask.items()}
    assert sum(found["keep"]) == mask.kept == round(DENSITY * mask.total)
    assert found["score"].nunique() > mask.total / 2


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.timeout(300)
def test_a_served_scorer_gives_the_mask_of_prune(registry: Registry, here: settings.Settings) -> None:
    table, mask = asked("5", here)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = ("--env-manager", "local", "--host", "127.0.0.1", "--port", str(port))
    command = (str(Path(sys.executable).parent / "mlflow"), "models", "serve", "-m", "models:/autosparse-scorer/5", *where)
    environment = {**os.environ, "MLFLOW_TRACKING_URI": here.mlflow_uri, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    server = subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        answered(f"http://127.0.0.1:{port}/ping", None)
        asks = {"dataframe_split": table.to_dict(orient="split", index=False), "params": PARAMS}
        found = answered(f"http://127.0.0.1:{port}/invocations", json.dumps(asks).encode())["predictions"]
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    assert mask_of(table, [row["keep"] for row in found]) == {name: keep.reshape(-1).int().tolist() for name, keep in mask.items()}


def answered(url: str, content: bytes | None) -> Any:
    """The JSON of an answer, or its text; a server that is not up yet is waited for."""
    deadline = time.monotonic() + 200
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, content, {"Content-Type": "application/json"}), timeout=60) as answer:
                text = answer.read().decode()
                return json.loads(text) if content else text
        except urllib.error.HTTPError:
            raise
        except OSError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.2)


def asked(version: str, here: settings.Settings) -> tuple[pd.DataFrame, autosparse.Mask]:
    """The weight table of a network, and its mask by `prune` with that version."""
    network = build_network(NetworkSpec(name="resnet8", width=4), image_shape=(1, 8, 8), num_classes=10, seed=3)
    images, labels = load_digits(return_X_y=True)
    batches = [(torch.tensor(images[:16], dtype=torch.float32).view(16, 1, 8, 8) / 16, torch.tensor(labels[:16]))]
    module, card = read_scorer(*load_scorer_files(here, f"models:/autosparse-scorer/{version}"), version)
    mask = autosparse.prune(network, batches, method=Scorer(module, card, version), density=DENSITY, warn=False)
    return pd.DataFrame(weight_table(network, batches)).astype({"weight": "float32", "gradient": "float32"}), mask


def mask_of(table: pd.DataFrame, keep: list[int]) -> dict[str, list[int]]:
    """Layer -> what is kept of it."""
    return {str(name): [keep[row] for row in rows] for name, rows in table.groupby("layer", sort=False).indices.items()}


def test_nothing_of_a_model_is_pickled(registry: Registry, tmp_path: Path) -> None:
    folder = artifacts.download_artifacts("models:/autosparse-scorer/3", dst_path=str(tmp_path))
    files = [path for path in Path(folder).rglob("*") if path.is_file() and path.suffix != ".pyc"]  # of Python, where it was served
    assert {str(path.relative_to(folder)) for path in files} == {
        *("MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", "served_scorer.py", "registered_model_meta"),
        *("artifacts/scorer.json", "artifacts/scorer.safetensors"),
    }


def test_a_table_that_is_none_is_one_line(registry: Registry) -> None:
    served = mlflow.pyfunc.load_model("models:/autosparse-scorer/5")
    good = pd.DataFrame({"layer": ["a"] * 4, "shape": ["2x2"] * 4, "weight": [0.1] * 4, "gradient": [0.2] * 4})
    good = good.astype({"weight": "float32", "gradient": "float32"})
    cases = {
        "density: 0.0 is not allowed": (good, {"density": 0.0}),
        "shape of a: '2x3' is not allowed": (good.assign(shape="2x3"), {}),
        "this scorer cuts by paths through the network": (good, {}),
        "network.name: 'os:system' is not allowed": (good, {"network": json.dumps(NETWORK | {"name": "os:system"})}),
        "resnet8 has no a of shape": (good, {"network": json.dumps(NETWORK)}),
    }
    for said, (table, params) in cases.items():
        with pytest.raises(mlflow.MlflowException, match=said) as error:
            served.predict(table, params=params)
        assert "\n" not in str(error.value)
