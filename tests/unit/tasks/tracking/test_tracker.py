"""MLflow as the pipeline uses it, on a real SQLite store: runs taken up again, no epoch twice, descriptions."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from autosparse.models.errors import ConflictError, TrackingError
from autosparse.storage.feature_shards import COLUMNS
from autosparse.tasks import settings
from autosparse.tasks.tracking import records
from autosparse.tasks.tracking import tracker as tracking
from autosparse.tasks.tracking.reachable import check_experiment
from autosparse.tasks.tracking.spool import Record, Spool
from autosparse.tasks.tracking.tracker import Tracker, flatten


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


def test_the_experiment_opens_on_the_training_page_unless_a_person_chose_another(tracker: Tracker, here: settings.Settings) -> None:
    kind = lambda: tracker.client.get_experiment(tracker.experiment_id).tags.get("mlflow.experimentKind")  # noqa: E731
    assert kind() == "custom_model_development"
    tracker.client.set_experiment_tag(tracker.experiment_id, "mlflow.experimentKind", "genai_development")
    assert tracker._experiment(here) == tracker.experiment_id
    assert kind() == "genai_development"
    tracker.client.delete_experiment_tag(tracker.experiment_id, "mlflow.experimentKind")  # of an earlier version
    assert tracker._experiment(here) == tracker.experiment_id
    assert kind() == "custom_model_development"


def test_a_description_knows_its_run_and_leaves_alone_what_a_person_wrote(tracker: Tracker) -> None:
    run = tracker.open("step-e", "e", parent=tracker.open("run", "test"))
    note = lambda: tracker.client.get_run(str(tracker.run_id(run))).data.tags.get("mlflow.note.content")  # noqa: E731
    for text in ("it trains", "in {experiment} as {run}"):
        tracker.describe(run, text)
    assert tracker.spool.drain(30)
    assert note() == f"in {tracker.experiment_id} as {tracker.run_id(run)}"
    tracker.client.set_tag(str(tracker.run_id(run)), "mlflow.note.content", "mine")
    tracker.describe(run, "it is done")
    assert tracker.spool.drain(30)
    assert note() == "mine"


def test_the_data_set_of_a_run_has_columns_and_rows(tracker: Tracker) -> None:
    run = tracker.open("step-f", "f", parent=tracker.open("run", "test"))
    tracker.features(run, {"uri": "/nowhere/d", "digest": "d" * 64, "rows": 50200, "sources": 1, "seconds": 0.1}, "written")
    old = {"do": "lineage", "run": run, "uri": "/nowhere/e", "name": "features", "digest": "e", "context": "written"}
    tracker.spool.put(old)  # a record in the spool of an earlier version
    assert tracker.spool.drain(30)
    inputs: Any = tracker.client.get_run(str(tracker.run_id(run))).inputs
    one, other = sorted((part.dataset for part in inputs.dataset_inputs), key=lambda dataset: dataset.digest)
    assert (one.name, one.digest) == ("features", "d" * 36)
    assert json.loads(one.profile) == {"num_rows": 50200, "num_elements": 301200, "sources": 1}
    columns = [column["name"] for column in json.loads(one.schema)["mlflow_colspec"]]
    assert columns == list(COLUMNS)
    assert (other.digest, other.schema, other.profile) == ("e", None, None)


def test_a_run_ends_no_earlier_than_it_began_when_the_clock_steps_back(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    run = opened(tracker, "step-g", "g", parent=tracker.open("run", "test"))
    monkeypatch.setattr(records.time, "time", lambda: 1.0)
    tracker.close(tracker.digest_of("step-g"))
    assert tracker.spool.drain(30)
    info = tracker.client.get_run(run).info
    assert (info.status, info.end_time) == ("FINISHED", info.start_time)


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
