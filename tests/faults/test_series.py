"""Arms one after another in long-lived jobs: the same bits alone or as the last of many, and what strikes one strikes it alone."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from autosparse.models.errors import DivergedError, JobError
from autosparse.models.specs.run_specs import JobSpec, NetworkSpec
from autosparse.storage import paths
from autosparse.storage.checkpoints import load_tensors
from autosparse.storage.open_store import open_store
from autosparse.storage.store import Store
from autosparse.tasks.cluster.connection import Cluster
from autosparse.tasks.cluster.series import Series
from autosparse.tasks.engine.run import job_config
from autosparse.tasks.worker.retrain_arm import ArmInputs, Level
from tests.faults.jobs import MID_EPOCH, ray_of_ones_own, spec, struck_arm
from tests.faults.matrix import fault

pytestmark = [pytest.mark.ray, pytest.mark.timeout(500)]
STEP = "autosparse.models.training.loop:train_step"
LOSS = "autosparse.models.training.step:_fill_gradients"
SMALL = NetworkSpec(name="resnet8", width=2)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ray_of_ones_own(tmp_path_factory.mktemp("home")) as found:
        yield found


class Arms:
    """Arms in one series, each by a name of its own; what was told of each."""

    def __init__(self, cluster: Cluster, store: Store, job: JobSpec) -> None:
        self.store = store
        self.told: dict[str, list[Any]] = {}
        self.series = Series(cluster, store, job=job, name="series", folder="training/series")

    def train(self, name: str, *faults: dict[str, Any], group: str = "a", **changes: Any) -> dict[str, Any]:
        """The report of an arm and a digest of its weights. Errors as `Series.run`."""
        one = spec()
        given: dict[str, Any] = {
            "network": one.irp.networks[0],
            "data": one.data,
            "train": one.irp.train,
            "seed": 1,
            "start_step": 0,
            "compact": False,
            "narrow": None,
            "initial": None,
        }
        given |= {"control": None, "mask": None, "method": None, "state": None, "compact": False}
        inputs = ArmInputs(**given | changes, step=name)
        told = self.told.setdefault(name, [])
        report = self.series.run(
            name=name,
            body=struck_arm,
            config=job_config(one, self.store, paths.RunPaths("test"), inputs) | {"faults": list(faults)},
            group=group,
            alone=False,
            earlier=(f"training/{name}",),
            on_event=told.append,
        )
        return report | {"digest": hashlib.sha256(self.store.read(paths.weights(name))).hexdigest()}

    def epochs(self, name: str) -> list[int]:
        """Epochs that were trained, in order."""
        return [event["epoch"] for event in self.told[name] if event["kind"] == "epoch"]

    def restarts(self, name: str) -> int:
        return sum(event["kind"] == "restart" for event in self.told[name])


@contextmanager
def arms(cluster: Cluster, folder: Path, job: JobSpec | None = None) -> Iterator[Arms]:
    found = Arms(cluster, open_store(str(folder)), job or JobSpec(step_timeout=20.0))
    try:
        yield found
    finally:
        found.series.close()


@pytest.mark.slow
@fault(None, "workers killed, hung and diverged in jobs that train one arm after another", "only that arm is struck; same bits")
def test_what_strikes_one_arm_strikes_no_other(cluster: Cluster, tmp_path: Path) -> None:
    once = {"call": MID_EPOCH, "where": STEP}
    with arms(cluster, tmp_path / "store") as made, ThreadPoolExecutor(2) as pool:
        first = made.train("first")
        rich = {"network": SMALL, "method": Level(name="grda(c=0.05,mu=0.8)", density=None), "group": "b"}
        several = {
            "killed": pool.submit(made.train, "killed", {**once, "do": "kill", "once": str(tmp_path / "killed")}),
            "diverged": pool.submit(made.train, "diverged", {"where": LOSS, "call": MID_EPOCH, "do": "nan"}, seed=2),
            "hung": pool.submit(made.train, "hung", {**once, "do": "hang", "once": str(tmp_path / "hung")}),
            "other": pool.submit(made.train, "other", **rich),
            "last": pool.submit(made.train, "last"),
        }
        with pytest.raises(DivergedError, match=r"train\.loss"):
            several.pop("diverged").result()
        found = {name: future.result() for name, future in several.items()}
        again = made.train("again", **rich)
    assert {found[name]["digest"] for name in ("killed", "hung", "last")} == {first["digest"]}
    assert found["other"]["digest"] == again["digest"] != first["digest"]
    assert [made.restarts(name) for name in ("killed", "hung", "last")] == [1, 1, 0]
    assert made.epochs("killed") == [0, 1, 2], "an epoch was trained twice, or not"


@pytest.mark.slow
@fault(None, "an arm whose workers are killed each time, between two others", "it is given up after three restarts, the others end")
def test_an_arm_that_kills_its_workers_is_given_up(cluster: Cluster, tmp_path: Path) -> None:
    with arms(cluster, tmp_path / "store", JobSpec(cpus_per_worker=2)) as made, ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(made.train, "before")]
        futures += [pool.submit(made.train, "deadly", {"where": STEP, "call": 1, "do": "kill"}), pool.submit(made.train, "after")]
        before, after = futures[0].result(), futures[2].result()
        with pytest.raises(JobError, match="job deadly: .* given up after 3 restarts"):
            futures[1].result()
    assert before["digest"] == after["digest"]
    assert made.restarts("deadly") == 3 and not made.restarts("after")


@pytest.mark.slow
def test_two_workers_an_arm(cluster: Cluster, tmp_path: Path) -> None:
    with arms(cluster, tmp_path / "store", JobSpec(workers=2)) as made:
        one, two = made.train("one"), made.train("two")
    assert one["digest"] == two["digest"]
    tensors = load_tensors(made.store.read(paths.weights("two")))
    assert all(tensor.isfinite().all() for tensor in tensors.values()) and made.epochs("two") == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_with_compile_an_arm_alone_and_as_the_tenth_of_its_job_has_the_same_bits(cluster: Cluster, tmp_path: Path) -> None:
    """Two arms, one with a method that attaches things; torch.compile makes C++ of the networks, or nothing would be shown."""
    attached = {"network": SMALL, "method": Level(name="grda(c=0.05,mu=0.8)", density=None)}
    probes = {"plain": {"network": SMALL}, "attached": attached}
    compiled = JobSpec(cpus_per_worker=2, compile=True)
    alone = {}
    for name, probe in probes.items():  # a process of its own each
        with arms(cluster, tmp_path / name, compiled) as made:
            alone[name] = made.train(name, **probe)["digest"]
    fillers = [{"seed": 2}, {"network": SMALL, "seed": 3}, {**attached, "seed": 4}]
    with arms(cluster, tmp_path / "store", compiled) as made:
        for index in range(9):
            made.train(f"before-{index}", **fillers[index % 3])
        found = {name: made.train(name, **probe)["digest"] for name, probe in probes.items()}
        jobs = made.series._started
    with arms(cluster, tmp_path / "eager", JobSpec(cpus_per_worker=2)) as made:
        eager = {name: made.train(name, **probe)["digest"] for name, probe in probes.items()}
    assert found == alone and jobs == 1
    assert eager["plain"] != alone["plain"], "nothing was compiled"
