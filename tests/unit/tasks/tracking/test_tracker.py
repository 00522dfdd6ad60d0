"""MLflow as the pipeline uses it, on a real SQLite store: runs taken up again, no epoch twice, a champion that must be beaten."""

import json
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autosparse.library.scorer_files import read_scorer, save_scorer
from autosparse.models.errors import ConflictError, DataError, TrackingError
from autosparse.models.features import FEATURE_NAMES
from autosparse.models.scorers.registry import build_scorer
from autosparse.storage.open_store import open_store
from autosparse.tasks import settings
from autosparse.tasks.tracking import tracker as tracking
from autosparse.tasks.tracking.reachable import check_experiment
from autosparse.tasks.tracking.spool import Record, Spool
from autosparse.tasks.tracking.tracker import Tracker, flatten

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


TAGS = {"autosparse.run": "test", "prefect.flow_run_id": "1", "ray.job_id": "2"}


@pytest.fixture
def tracker(here: settings.Settings) -> Iterator[Tracker]:
    made = Tracker(here, TAGS)
    with made.closing():
        yield made


def opened(tracker: Tracker, *arguments: str, parent: str | None = None) -> str:
    """MLflow's id of the run that was opened."""
    run = tracker.open(*arguments, parent=parent)
    assert tracker.spool.drain(30)
    return str(tracker.run_id(run))


def test_an_unfinished_run_is_taken_up_and_a_finished_one_is_not(tracker: Tracker) -> None:
    parent = opened(tracker, "run", "test")
    root, step = tracker.digest_of("run"), tracker.digest_of("step-a")
    first = opened(tracker, "step-a", "a", parent=root)
    tracker.close(step, "KILLED")
    assert opened(tracker, "step-a", "a", parent=root) == first
    tracker.close(step)
    assert opened(tracker, "step-a", "a", parent=root) != first
    assert opened(tracker, "run", "test") == parent
    tags = tracker.client.get_run(first).data.tags
    assert tags["mlflow.parentRunId"] == parent
    assert tags["autosparse.run"] == "test"


def test_what_a_killed_process_left_is_handed_over_by_the_next_one_and_its_runs_end(here: settings.Settings) -> None:
    before = Tracker(here, TAGS)
    run = opened(before, "step-d", "d", parent=before.open("run", "test"))
    before.spool.close()  # takes no more: a server that is away
    before.spool = Spool(tracking.spool_folder(here, "test"), never)
    before.metrics(before.digest_of("step-d"), {"accuracy": 0.5}, step=1)
    before.spool.close()
    after = Tracker(here, TAGS)
    with after.closing(whole=True):
        assert after.spool.drain(30)
        assert [point.value for point in after.client.get_metric_history(run, "accuracy")] == [0.5]
        assert after.client.get_run(run).info.status == "RUNNING"
    assert after.client.get_run(run).info.status == "FINISHED"
    assert not tracking.spool_folder(here, "test").exists()


def never(record: Record, content: bytes | None) -> None:
    raise ConnectionError("away")


def test_a_run_ends_with_an_error_where_mlflow_did_not_take_everything(here: settings.Settings) -> None:
    tracker = Tracker(replace(here, mlflow_seconds=0.3), TAGS)
    tracker.spool.close()
    tracker.spool = Spool(tracking.spool_folder(here, "test"), never)
    told = r"^the end of the run: mlflow at .* within 0 s \(1 records wait; away\); .*`autosparse sync test`"
    with pytest.raises(TrackingError, match=told), tracker.closing():
        tracker.metrics("0", {"a": 1.0})
    shutil.rmtree(tracker.spool.folder)


def test_an_epoch_that_is_there_already_is_not_logged_again(tracker: Tracker) -> None:
    run = tracker.open("step-b", "b", parent=tracker.open("run", "test"))
    for step, value in ((1, 0.1), (2, 0.2), (1, 0.9), (2, 0.9), (3, 0.3)):
        tracker.metrics(run, {"accuracy": value}, step=step)
    assert tracker.spool.drain(30)
    history = tracker.client.get_metric_history(str(tracker.run_id(run)), "accuracy")
    assert [(point.step, point.value) for point in history] == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_parameters_can_be_told_twice(tracker: Tracker) -> None:
    run = tracker.open("step-c", "c", parent=tracker.open("run", "test"))
    tracker.parameters(run, {"irp": {"rounds": 3}})
    tracker.parameters(run, {"irp": {"rounds": 4, "seeds": [1, 2]}})
    assert tracker.spool.drain(30)
    assert tracker.client.get_run(str(tracker.run_id(run))).data.params == {"irp.rounds": "3", "irp.seeds": "[1, 2]"}


def test_flatten() -> None:
    assert flatten({"a": {"b": 1}, "c": [{"d": 2}], "e": [3], "f": {}}) == {"a.b": 1, "c.0.d": 2, "e": [3]}


def test_the_champion_moves_only_for_a_better_scorer(tracker: Tracker, here: settings.Settings, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "storage"))
    found = []
    for number, value in enumerate((0.5, 0.4, 0.6)):
        scorer = build_scorer("mlp", hidden=(4,), seed=number)
        save_scorer(store, f"scorer-{number}", scorer, {"metrics": {}})
        run = tracker.open(f"fit-{number}", f"fit {number}", parent=tracker.open("run", "test"))
        tags = {"dataset_digest": f"d{number}", "held_out": str(value)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.export and MLflow warn of their own code
            found.append(tracker.register(run, scorer, example=EXAMPLE, store=store, files=f"scorer-{number}", tags=tags))
            again = tracker.register(run, scorer, example=EXAMPLE, store=store, files=f"scorer-{number}", tags=tags)
        assert again == found[-1], "the same scorer was registered twice"
    assert found == [("1", True), ("2", False), ("3", True)]
    card, weights = tracking.load_scorer_files(here, "models:/autosparse-scorer@champion")
    champion, described = read_scorer(card, weights, "champion")
    assert json.loads(card)["scorer"]["kind"] == described["scorer"]["kind"] == "mlp"
    rows = torch.randn(5, len(FEATURE_NAMES))
    assert torch.equal(champion(rows), build_scorer("mlp", hidden=(4,), seed=2)(rows))
    with pytest.raises(DataError, match="models:/autosparse-scorer/99 is not in the registry"):
        tracking.load_scorer_files(here, "models:/autosparse-scorer/99")


def test_a_deleted_experiment_is_said_with_the_command_that_restores_it(here: settings.Settings, tracker: Tracker) -> None:
    check_experiment(here.mlflow_uri)
    tracker.client.delete_experiment(tracker.experiment_id)
    with pytest.raises(ConflictError) as error:
        check_experiment(here.mlflow_uri)
    tracker.client.restore_experiment(tracker.experiment_id)
    assert str(error.value) == (
        f"mlflow: the experiment 'autosparse' was deleted at {here.mlflow_uri}; "
        f"MLFLOW_TRACKING_URI={here.mlflow_uri} mlflow experiments restore --experiment-id {tracker.experiment_id}"
    )
    check_experiment(here.mlflow_uri)
