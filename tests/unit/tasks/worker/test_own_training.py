"""Rounds and arms of a task with an optimizer and a schedule of its own, and of images by AdamW, as the worker trains them."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.train

from autosparse.flows.recipes import smoke
from autosparse.models.masks import mask as masks
from autosparse.models.specs.run_specs import DataSpec, JobSpec, NetworkSpec, ScoringSpec, TrainSpec
from autosparse.storage import paths
from autosparse.storage.checkpoints import load_tensors
from autosparse.storage.mask_files import load_mask
from autosparse.storage.open_store import open_store
from autosparse.tasks.worker.inputs import Launch, RunInputs, config_of, launched
from autosparse.tasks.worker.irp_round import RoundInputs, run_round

pytestmark = pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # images lie in the cache

MINE = "tests.plugins.tuned"
TRAIN = TrainSpec(
    epochs=4, batch_size=16, lr=0.1, momentum=0.0, nesterov=False, weight_decay=0.0, schedule="cosine", accumulate=2, evaluate_every=3
)
OWN = (NetworkSpec(name=f"{MINE}:network"), DataSpec(name=f"{MINE}:Task"))
PICTURES = (NetworkSpec(name="lenet300-100"), DataSpec(name="digits", train_limit=64, test_limit=64))


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Ray Train is told."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(ray.train, "report", lambda metrics, checkpoint=None: found.append(metrics))
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: None)
    return found


def rounds(folder: Path, network: NetworkSpec, data: DataSpec, train: TrainSpec, told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The reports of two rounds down to a quarter of the weights."""
    irp = replace(smoke().irp, rounds=2, final_density=0.25, train=train)
    found = []
    for index in range(2):
        inputs = RoundInputs(
            irp=irp,
            network=network,
            data=data,
            seed=0,
            index=index,
            source="s",
            step=f"s/{index}",
            step_before="s/0" if index else None,
            ticket_densities=(),
        )
        config = config_of(RunInputs(storage=str(folder), name="test", scoring=ScoringSpec(batches=1, batch_size=16)), inputs)
        found.append(run_round(launched(config, Launch(job="round", resources=JobSpec()), SimpleNamespace(put=told.append))))
    return found


@pytest.mark.parametrize(
    ("asked", "train", "rate"),
    [(OWN, TRAIN, 0.01), (PICTURES, replace(TRAIN, optimizer="adamw", lr=0.01, schedule="constant", label_smoothing=0.1, mixup=0.2), None)],
    ids=["own", "adamw"],
)
def test_rounds_under_another_optimizer_with_an_evaluation_every_third_epoch(
    asked: tuple[NetworkSpec, DataSpec], train: TrainSpec, rate: float | None, tmp_path: Path, reported: list[dict[str, Any]]
) -> None:
    told: list[dict[str, Any]] = []
    first, second = rounds(tmp_path, *asked, train, told)
    store = open_store(str(tmp_path))
    mask = load_mask(store.read(paths.mask("s/0")))
    trained = load_tensors(store.read(paths.weights("s/1")))
    assert masks.density(mask) == pytest.approx(0.5, abs=0.01)
    for name, keep in mask.items():
        assert not trained[name][~keep].any() and trained[name][keep].any()
    for report in (first, second):
        assert [record["step"] for record in report["epochs"]] == [4, 8, 12, 16]  # 64 examples
        assert ["accuracy" in record for record in report["epochs"]] == [False, False, True, True]
        assert report["accuracy"] == report["epochs"][-1]["accuracy"] > 0.3
        if rate:  # the optimizer's own, times 1 - step / 16 in the last step of an epoch
            assert [record["lr"] for record in report["epochs"]] == [pytest.approx(rate * (1 - step / 16)) for step in (3, 7, 11, 15)]
    assert [("accuracy" in metrics) for metrics in reported] == [False, False, True, True] * 2
    assert [event["metrics"] for event in told if event["kind"] == "epoch"] == [[], [], ["accuracy"], ["accuracy"]] * 2


def test_an_optimizer_of_another_network_is_one_line(tmp_path: Path, reported: list[dict[str, Any]]) -> None:
    found = rounds(tmp_path, OWN[0], DataSpec(name=f"{MINE}:Strange"), TRAIN, [])[0]["error"]
    expected = "task.optimizer: 'AdamW' is not allowed; allowed: an optimizer of parameters of the network it is given"
    assert (found["type"], found["message"]) == ("SpecError", expected)
