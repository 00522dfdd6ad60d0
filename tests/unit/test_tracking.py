"""MLflow as the pipeline uses it, on a real SQLite store: runs taken up again, no epoch twice, a champion that must be beaten."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models.errors import DataError, ServiceError
from models.features import FEATURE_NAMES
from models.scorers.registry import build_scorer
from storage.store import open_store
from tasks import settings, tracking
from tasks.tracking import Tracker, flatten
from tasks.worker.scorer_files import read_scorer, save_scorer

EXAMPLE = torch.zeros(2, len(FEATURE_NAMES))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[settings.Settings]:
    patch = pytest.MonkeyPatch()
    patch.setenv("AUTOSPARSE_HOME", str(tmp_path_factory.mktemp("home")))
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found = settings.load()
    settings.export(found)
    yield found
    patch.undo()


@pytest.fixture
def tracker(here: settings.Settings) -> Tracker:
    return Tracker(here, {"autosparse.run": "test", "prefect.flow_run_id": "1", "ray.job_id": "2"})


def test_an_unfinished_run_is_taken_up_and_a_finished_one_is_not(tracker: Tracker) -> None:
    parent = tracker.open("run", "test")
    first = tracker.open("step-a", "a", parent=parent)
    tracker.close(first, "KILLED")
    assert tracker.open("step-a", "a", parent=parent) == first
    tracker.close(first)
    assert tracker.open("step-a", "a", parent=parent) != first
    assert tracker.open("run", "test") == parent
    tags = tracker.client.get_run(first).data.tags
    assert tags["mlflow.parentRunId"] == parent
    assert tags["autosparse.run"] == "test"


def test_an_epoch_that_is_there_already_is_not_logged_again(tracker: Tracker) -> None:
    run = tracker.open("step-b", "b", parent="parent")
    for step, value in ((1, 0.1), (2, 0.2), (1, 0.9), (2, 0.9), (3, 0.3)):
        tracker.metrics(run, {"accuracy": value}, step=step)
    assert [(point.step, point.value) for point in tracker.client.get_metric_history(run, "accuracy")] == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_parameters_can_be_told_twice(tracker: Tracker) -> None:
    run = tracker.open("step-c", "c", parent="parent")
    tracker.parameters(run, {"irp": {"rounds": 3}})
    tracker.parameters(run, {"irp": {"rounds": 4, "seeds": [1, 2]}})
    assert tracker.client.get_run(run).data.params == {"irp.rounds": "3", "irp.seeds": "[1, 2]"}


def test_flatten() -> None:
    assert flatten({"a": {"b": 1}, "c": [{"d": 2}], "e": [3], "f": {}}) == {"a.b": 1, "c.0.d": 2, "e": [3]}


def test_the_champion_moves_only_for_a_better_scorer(tracker: Tracker, here: settings.Settings, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "storage"))
    found = []
    for number, value in enumerate((0.5, 0.4, 0.6)):
        scorer = build_scorer("mlp", hidden=(4,), seed=number)
        save_scorer(store, f"scorer-{number}", scorer, {"metrics": {}})
        run = tracker.open(f"fit-{number}", f"fit {number}", parent="parent")
        tags = {"dataset_digest": f"d{number}", "held_out": str(value)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.export and MLflow warn of their own code
            found.append(tracker.register(run, scorer, example=EXAMPLE, store=store, files=f"scorer-{number}", tags=tags, value=value))
            again = tracker.register(run, scorer, example=EXAMPLE, store=store, files=f"scorer-{number}", tags=tags, value=value)
        assert again == found[-1], "the same scorer was registered twice"
    assert found == [("1", True), ("2", False), ("3", True)]
    card, weights = tracking.load_scorer_files(here, "models:/autosparse-scorer@champion")
    champion, described = read_scorer(card, weights, "champion")
    assert json.loads(card)["scorer"]["kind"] == described["scorer"]["kind"] == "mlp"
    rows = torch.randn(5, len(FEATURE_NAMES))
    assert torch.equal(champion(rows), build_scorer("mlp", hidden=(4,), seed=2)(rows))
    with pytest.raises(DataError, match="models:/autosparse-scorer/99 is not in the registry"):
        tracking.load_scorer_files(here, "models:/autosparse-scorer/99")


def test_a_server_that_does_not_answer_is_named_with_the_time_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "HEALTH_SECONDS", 5.5)
    with pytest.raises(ServiceError, match=r"mlflow: http://127\.0\.0\.1:9 did not answer for 1 s"):
        tracking.check_reachable("http://127.0.0.1:9")
