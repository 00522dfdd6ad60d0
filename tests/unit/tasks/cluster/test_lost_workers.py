"""What the driver makes of the errors that Ray hands it, and from where a job goes on whose resume file is lost."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.train
import torch
from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.train import ControllerError, WorkerGroupError

from autosparse.models.errors import DivergedError, JobError, MemoryLimitError
from autosparse.storage.checkpoints import save_training_state
from autosparse.storage.open_store import open_store
from autosparse.tasks.cluster import jobs as ray_jobs
from autosparse.tasks.cluster.jobs import Losses, Restarts
from autosparse.tasks.worker import train_network
from tests.worker_jobs import job_on

CLUSTER: Any = SimpleNamespace(logs="/logs", keep_logs=False)


def test_a_kill_by_rays_memory_monitor_is_named_as_memory() -> None:
    error = WorkerGroupError("two ranks failed", {0: RuntimeError("peer lost"), 1: OutOfMemoryError("killed by the monitor\n")})
    found = ray_jobs.lost_error("round-0", error, CLUSTER)
    assert isinstance(found, MemoryLimitError)
    assert "train.batch_size" in str(found) and "\n" not in str(found)


def test_a_job_given_up_names_the_rank_that_died_and_where_the_logs_are() -> None:
    error = WorkerGroupError("two ranks failed", {0: RuntimeError("peer lost"), 1: ActorDiedError()})
    found = ray_jobs.lost_error("round-0", error, CLUSTER)
    assert type(found) is JobError
    assert "rank 1: " in str(found) and "rank 0" not in str(found) and "/logs" in str(found)
    assert CLUSTER.keep_logs


def test_our_own_errors_are_final() -> None:
    ours = DivergedError("train.loss: nan", {"step": 3})
    losses = Losses(SimpleNamespace(actor=None), "round-0")  # type: ignore[arg-type]
    with pytest.raises(DivergedError):
        losses.after_exception(None, {0: RuntimeError("peer lost"), 1: ours})
    assert ray_jobs.final_error(ControllerError(ControllerError(ours))) is ours
    assert ray_jobs.final_error(WorkerGroupError("", {0: RuntimeError("x")})) is None
    losses.after_exception(None, {0: RuntimeError("a broken queue is no reason to end a training")})


def test_restarts_are_counted_and_say_why() -> None:
    told: list[dict[str, Any]] = []
    hear = Restarts(told.append)
    lost = {"job": "a", "kind": "lost", "message": "rank 0: died"}
    hear({"job": "a", "kind": "epoch", "epoch": 0})
    hear(lost)
    hear({"job": "a", "kind": "last_words", "message": "rank 1: no step for 5 s"})
    for _ in range(3):
        hear(lost)
    assert [event["kind"] for event in told] == ["epoch", "restart", "restart", "restart"]
    assert [event["message"].partition(" from")[0] for event in told[1:]] == ["restart 1/3", "restart 2/3", "restart 3/3"]
    assert "rank 0: died" in told[1]["message"] and "no step for 5 s" in told[2]["message"]


def test_the_furthest_whole_checkpoint_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: None)
    store = open_store(str(tmp_path))
    for name, step in (("job/checkpoint_a", 4), ("job-b/checkpoint_b", 8), ("job-b/checkpoint_c", 12)):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1).state_dict()
        save_training_state(tmp_path / "training" / name, {"w": torch.full((2,), float(step))}, optimizer, {"step": step, "history": []})
    (tmp_path / "training/job-b/checkpoint_c/model.safetensors").write_bytes(b"cut")
    job = job_on(store, earlier=("training/job", "training/job-b"))
    found = train_network._rescued(job)
    assert found and found.progress["step"] == 8
    assert found.network["w"].tolist() == [8.0, 8.0]
    shutil.rmtree(tmp_path / "training")
    assert train_network._rescued(job) is None
