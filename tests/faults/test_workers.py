"""Workers that die, hang, run out of memory or diverge in the middle of a round: one Ray, a job for each fault."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autosparse.models.errors import CollapseError, DivergedError, MemoryLimitError
from autosparse.models.specs.run_specs import JobSpec
from autosparse.storage import paths
from autosparse.storage.checkpoints import load_training_state
from autosparse.storage.mask_files import load_mask
from autosparse.storage.open_store import open_store
from autosparse.tasks.cluster.connection import Cluster
from tests.faults.jobs import FOLDER, MID_EPOCH, NAME, PER_EPOCH, Round, driver, fresh, printed, ray_of_ones_own
from tests.faults.matrix import fault
from tests.faults.runs import processes_of
from tests.pipeline.command_line import wait_for

pytestmark = pytest.mark.ray
PATIENCE = 240
STEP = "autosparse.models.training.loop:train_step"
LOSS = "autosparse.models.training.step:_fill_gradients"
TWO = JobSpec(workers=2, step_timeout=10.0)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ray_of_ones_own(tmp_path_factory.mktemp("home")) as found:
        yield found


@pytest.fixture(scope="module")
def whole(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of the round that nothing happened to."""
    one = fresh(tmp_path_factory.mktemp("whole"))
    return one.result(one.run(cluster))


@pytest.fixture
def one(tmp_path: Path) -> Round:
    return fresh(tmp_path)


@pytest.fixture(scope="module")
def diverged(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Round, DivergedError]:
    """A round whose loss was NaN in the second epoch, and its error."""
    one = fresh(tmp_path_factory.mktemp("diverged"))
    with pytest.raises(DivergedError) as caught:
        one.run(cluster, in_mid_epoch(one, LOSS, "nan"))
    return one, caught.value


def in_mid_epoch(one: Round, where: str, do: str, **more: Any) -> dict[str, Any]:
    """A fault in the second epoch, once the checkpoint of the first is on record."""
    return {"where": where, "call": MID_EPOCH, "do": do, "until": str(one.snapshot), **more}


@fault(1, "worker killed in mid-epoch, once", "one restart, at most one epoch done twice, same bits")
def test_a_killed_worker(cluster: Cluster, whole: dict[str, Any], one: Round, tmp_path: Path) -> None:
    report = one.run(cluster, in_mid_epoch(one, STEP, "kill", once=str(tmp_path / "struck")))
    assert one.result(report) == whole
    assert one.epochs == [0, 1, 2], "the epoch that was under way is done twice, the one before it is not"
    assert [said.partition(" from ")[0] for said in one.restarts] == ["restart 1/3"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@fault(4, "driver killed inside a round, between two reports", "the same name goes on from the last checkpoint, same bits, no process left")
def test_a_killed_driver(whole: dict[str, Any], one: Round, tmp_path: Path) -> None:
    struck = tmp_path / "struck"
    with driver(tmp_path, one, in_mid_epoch(one, STEP, "hang", once=str(struck))) as process:
        wait_for(lambda: struck.exists() and one.snapshot.exists(), PATIENCE)
        process.kill()
    wait_for(lambda: not any("RayTrainWorker" in process for process in processes_of(tmp_path)), PATIENCE)
    with driver(tmp_path, one) as process:
        found = printed(process, PATIENCE)
    assert found["result"] == whole
    assert found["epochs"] == [1, 2], "the epoch that was under way is done again, the one before it is not"
    wait_for(lambda: not processes_of(tmp_path), PATIENCE)


@pytest.mark.slow
@fault(24, "a worker's clock goes back an hour in mid-epoch", "no negative duration, same bits", simulated="time.time")
def test_a_clock_that_goes_back(cluster: Cluster, whole: dict[str, Any], one: Round) -> None:
    report = one.run(cluster, in_mid_epoch(one, STEP, "set_back"))
    assert one.result(report) == whole
    assert all(0 <= epoch["seconds"] < PATIENCE for epoch in report["epochs"])


@fault(5, "checkpoint_manager_snapshot.json cut in half", "another attempt goes on from the checkpoint itself; nothing deleted; same bits")
def test_a_broken_resume_file(cluster: Cluster, whole: dict[str, Any], diverged: tuple[Round, DivergedError], tmp_path: Path) -> None:
    shutil.copytree(diverged[0].store.root, tmp_path / "storage")  # divergence leaves what a kill leaves
    one = Round(open_store(str(tmp_path / "storage")))
    one.snapshot.write_bytes(one.snapshot.read_bytes()[: one.snapshot.stat().st_size // 2])
    before = one.store.list(f"{FOLDER}/{NAME}")
    first = diverged[0].told[0]
    report = one.run(cluster)
    assert one.result(report) == whole
    assert one.epochs == [1, 2]
    assert report["epochs"][0]["seconds"] == first["seconds"], "the first epoch is the one of before, out of its checkpoint"
    assert one.store.list(f"{FOLDER}/{NAME}") == before


@fault(19, "the loss is NaN at one step", "ends at that step, not retried; last checkpoint kept, norms per layer in the error")
def test_a_loss_that_is_no_number(diverged: tuple[Round, DivergedError]) -> None:
    one, error = diverged
    details = error.details
    assert details["step"] == MID_EPOCH - 1
    assert details["gradient_norms"].keys() == details["parameter_norms"].keys()
    assert len(details["gradient_norms"]) == 6
    assert all(norm > 0 for norm in details["gradient_norms"].values()), "the loss alone was spoiled"
    assert one.epochs == [0]
    assert not one.restarts
    (state,) = one.snapshot.parent.glob("checkpoint_*/state.json")
    assert load_training_state(state.parent).progress["step"] == PER_EPOCH


@fault(21, "a worker asks for more memory than there is", "named as memory with what to lower, not retried")
def test_a_worker_without_memory(cluster: Cluster, one: Round) -> None:
    with pytest.raises(MemoryLimitError, match=r"train\.batch_size"):
        one.run(cluster, {"where": STEP, "call": 2, "do": "allocate"})
    assert not one.restarts


@fault(
    21,
    "one of two ranks runs out of GPU memory",
    "the other does not wait for it: named as memory, not retried",
    simulated="torch.OutOfMemoryError raised on a CPU",
)
def test_one_rank_without_memory(cluster: Cluster, one: Round) -> None:
    with pytest.raises(MemoryLimitError, match="rank 1"):
        one.run(cluster, {"where": STEP, "call": 2, "rank": 1, "do": "fail", "error": "torch.OutOfMemoryError"}, job=TWO)
    assert not one.restarts


@pytest.mark.slow
@fault(22, "one of two ranks hangs for ever", "the watchdog ends the processes, one restart, same bits")
def test_a_hung_rank(cluster: Cluster, one: Round, tmp_path: Path) -> None:
    other = fresh(tmp_path / "undisturbed")
    undisturbed = other.result(other.run(cluster, job=TWO))
    report = one.run(cluster, in_mid_epoch(one, STEP, "hang", rank=1, once=str(tmp_path / "struck")), job=TWO)
    assert one.result(report) == undisturbed
    assert one.epochs == [0, 1, 2]
    (said,) = one.restarts
    assert "no step for 10 s" in said


@fault(20, "a cut to density 0.001 empties a layer", "refused with what each layer keeps, no mask stored; a floor repairs it")
def test_a_collapsing_cut(cluster: Cluster, one: Round, tmp_path: Path) -> None:
    lowest = {"irp.rounds": 1, "irp.final_density": 0.001, "irp.train.epochs": 1, "irp.min_per_layer": 0}
    with pytest.raises(CollapseError) as caught:
        one.run(cluster, **lowest)
    kept = caught.value.details["kept"]
    assert sum(kept.values()) == 50  # of 50,200 weights
    assert len(kept) == 3 and 0 in kept.values()
    assert not [key for key in one.store.list("runs") if "mask" in key or "report" in key]
    repaired = fresh(tmp_path / "floor")
    report = repaired.run(cluster, **lowest | {"irp.min_per_layer": 2})
    (key,) = [key for key in repaired.store.list("runs") if key.endswith(paths.mask("round-000"))]
    left = [int(keep.sum()) for keep in load_mask(repaired.store.read(key)).values()]
    assert report["kept"] == sum(left) == 50
    assert min(left) >= 2
