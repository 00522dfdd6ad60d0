"""Rounds as Ray Train jobs on one Ray: undisturbed, on two workers, and with workers that die, hang, run out of memory or diverge."""

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch

from autosparse.models.errors import CapacityError, CollapseError, DivergedError, MemoryLimitError
from autosparse.models.masks import mask as masks
from autosparse.models.specs.run_specs import JobSpec
from autosparse.storage import paths
from autosparse.storage.checkpoints import load_tensors, load_training_state
from autosparse.storage.mask_files import load_mask
from autosparse.storage.open_store import open_store
from autosparse.tasks.cluster.connection import Cluster
from tests.faults.jobs import FOLDER, MID_EPOCH, NAME, PER_EPOCH, TICKET, Round, driver, fresh, printed, ray_of_ones_own
from tests.faults.matrix import fault
from tests.faults.runs import processes_of
from tests.pipeline.command_line import title_of, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")]  # images lie in the cache
PATIENCE = 240
STEP = "autosparse.models.training.loop:train_step"
LOSS = "autosparse.models.training.step:_fill_gradients"
TWO = JobSpec(workers=2, step_timeout=10.0)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ray_of_ones_own(tmp_path_factory.mktemp("home")) as found:
        yield found


@pytest.fixture(scope="module")
def first(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Round, dict[str, Any]]:
    """The round that nothing happened to, and its report."""
    one = fresh(tmp_path_factory.mktemp("whole"))
    return one, one.run(cluster)


@pytest.fixture(scope="module")
def whole(first: tuple[Round, dict[str, Any]]) -> dict[str, Any]:
    """The result of that round."""
    return first[0].result(first[1])


@pytest.fixture
def one(tmp_path: Path) -> Round:
    return fresh(tmp_path)


@pytest.fixture(scope="module")
def diverged(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Round, DivergedError]:
    """A round whose loss was NaN in the second epoch, and its error."""
    one = fresh(tmp_path_factory.mktemp("diverged"))
    with pytest.raises(DivergedError, match=r"train\.loss") as caught:
        one.run(cluster, in_mid_epoch(one, LOSS, "nan"))
    return one, caught.value


def in_mid_epoch(one: Round, where: str, do: str, **more: Any) -> dict[str, Any]:
    """A fault in the second epoch, once the checkpoint of the first is on record."""
    return {"where": where, "call": MID_EPOCH, "do": do, "until": str(one.snapshot), **more}


def test_two_rounds_train_cut_and_rewind(first: tuple[Round, dict[str, Any]], tmp_path: Path) -> None:
    begun, report = first
    one, weights = copied(begun, tmp_path), report["weights"]
    assert begun.epochs == [0, 1, 2]
    assert (report["density"], report["kept"]) == (1.0, round(0.1**0.5 * weights))
    second = one.run_here(1)
    assert (second["density"], second["kept"]) == (report["kept"] / weights, round(0.1 * weights))
    before, after = (load_mask(one.store.read(paths.mask(f"{one.source}/round-{index:03d}"))) for index in range(2))
    assert all(not (after[name] & ~before[name]).any() for name in after), "a cut weight came back"
    initial, rewound = states(one)
    assert all(torch.equal(initial[name], rewound[name]) for name in initial)
    trained = load_tensors(one.store.read(paths.weights(f"{one.source}/round-001")))
    assert all(not trained[name][~before[name]].any() for name in before), "a masked weight was trained"
    ticket = load_mask(one.store.read(paths.ticket(one.source, TICKET)))
    assert masks.kept(ticket) == round(TICKET * weights)


def test_two_workers_end_where_one_ends_and_a_late_rewind_returns_to_the_state_of_that_step(
    cluster: Cluster, first: tuple[Round, dict[str, Any]], one: Round
) -> None:
    """LeNet has no BatchNorm, so halves of a batch give the same mean gradient up to rounding. What is kept for later changes nothing."""
    late = {"irp.rewind_step": 3}
    report = one.run(cluster, job=JobSpec(workers=2), **late)
    assert first[1]["accuracy"] == pytest.approx(report["accuracy"], abs=0.01)
    alone, together = (load_tensors(by.store.read(paths.weights(f"{by.source}/round-000"))) for by in (first[0], one))
    for name, tensor in alone.items():
        torch.testing.assert_close(tensor, together[name], rtol=1e-3, atol=1e-5)
    alone, together = (load_mask(by.store.read(paths.mask(f"{by.source}/round-000"))) for by in (first[0], one))
    assert sum(int((keep != together[name]).sum()) for name, keep in alone.items()) <= 4  # weights at the threshold may swap
    initial, rewound = states(one)
    assert not any(torch.equal(initial[name], rewound[name]) for name in initial)
    second = one.run_here(1, **late)
    assert [epoch["step"] for epoch in second["epochs"]] == [PER_EPOCH, 2 * PER_EPOCH, 3 * PER_EPOCH]  # the first one short of 3 steps


def copied(one: Round, folder: Path) -> Round:
    """What is stored of a round, to be spoiled or gone on with."""
    shutil.copytree(one.store.root, folder / "storage")
    return Round(open_store(str(folder / "storage")))


def states(one: Round) -> list[dict[str, torch.Tensor]]:
    """The first state and the one that later rounds return to."""
    return [load_tensors(one.store.read(key)) for key in (paths.initial_state(one.source), paths.rewind_state(one.source))]


def test_what_can_never_be_placed_is_refused_at_once(cluster: Cluster, one: Round) -> None:
    start = time.monotonic()
    with pytest.raises(CapacityError, match=r"job\.cpus_per_worker: 64 workers x 1 = 64 is not allowed; allowed: at most"):
        one.run(cluster, job=JobSpec(workers=64))
    with pytest.raises(CapacityError, match=r"job\.gpus_per_worker: 1 workers x 8 = 8 is not allowed"):
        cluster.slots(JobSpec(gpus_per_worker=8.0))
    assert time.monotonic() - start < 5


@fault(1, "worker killed in mid-epoch, once", "one restart, at most one epoch done twice, same bits")
def test_a_killed_worker(cluster: Cluster, whole: dict[str, Any], one: Round, tmp_path: Path) -> None:
    report = one.run(cluster, in_mid_epoch(one, STEP, "kill", once=str(tmp_path / "struck")))
    assert one.result(report) == whole
    assert one.epochs == [0, 1, 2], "the epoch that was under way is done twice, the one before it is not"
    assert [said.partition(" from ")[0] for said in one.restarts] == ["restart 1/3"]


@fault(
    None, "the process that controls a round killed in mid-epoch", "its worker ends, another controls the rest, same bits, no place lost"
)
def test_a_killed_launcher(cluster: Cluster, whole: dict[str, Any], one: Round, tmp_path: Path) -> None:
    struck = tmp_path / "struck"
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(one.run, cluster, in_mid_epoch(one, STEP, "hang", once=str(struck)))
        wait_for(lambda: struck.exists() and one.snapshot.exists(), PATIENCE)
        (launcher,) = (child for child in psutil.Process().children(recursive=True) if "Launcher.fit" in title_of(child))
        launcher.kill()
        report = done.result()
    assert one.result(report) == whole
    assert one.epochs == [0, 1, 2], "the epoch that was under way is done again, the one before it is not"
    wait_for(lambda: ray.available_resources()["CPU"] == cluster.cpus, PATIENCE)  # no place is still taken


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
    one = copied(diverged[0], tmp_path)  # divergence leaves what a kill leaves
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


@fault(
    21,
    "a worker asks for more memory than there is",
    "named as memory with what to lower; such errors are not retried, as the next line tests",
    simulated="no worker: the body of the job in the process of the test",
)
def test_a_worker_without_memory(one: Round, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(STEP.replace(":", "."), lambda *_: torch.ones(2**50, dtype=torch.uint8))
    with pytest.raises(MemoryLimitError, match=r"train\.batch_size"):
        one.run_here()


@pytest.mark.slow
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


@fault(
    20,
    "a cut to density 0.001 empties a layer",
    "refused with what each layer keeps, no mask stored; a floor repairs it",
    simulated="no worker: the body of the job in the process of the test",
)
def test_a_collapsing_cut(one: Round, tmp_path: Path) -> None:
    lowest = {"irp.rounds": 1, "irp.final_density": 0.001, "irp.train.epochs": 1, "irp.min_per_layer": 0}
    with pytest.raises(CollapseError) as caught:
        one.run_here(**lowest)
    kept = caught.value.details["kept"]
    assert sum(kept.values()) == 50  # of 50,200 weights
    assert len(kept) == 3 and 0 in kept.values()
    assert not [key for key in one.store.list("runs") if "mask" in key or "report" in key]
    repaired = fresh(tmp_path / "floor")
    report = repaired.run_here(**lowest | {"irp.min_per_layer": 2})
    (key,) = [key for key in repaired.store.list("runs") if key.endswith(paths.mask("round-000"))]
    left = [int(keep.sum()) for keep in load_mask(repaired.store.read(key)).values()]
    assert report["kept"] == sum(left) == 50
    assert min(left) >= 2
