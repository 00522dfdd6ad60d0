"""Real Ray Train jobs on a real local Ray: one worker against two, errors that are not retried, what cannot be placed."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from autosparse.flows.recipes import smoke
from autosparse.models.errors import CapacityError, DivergedError
from autosparse.models.masks import mask as masks
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import override
from autosparse.models.specs.run_specs import JobSpec
from autosparse.storage import paths
from autosparse.storage.checkpoints import load_tensors
from autosparse.storage.mask_files import load_mask
from autosparse.storage.open_store import open_store
from autosparse.storage.store import Store
from autosparse.tasks import settings
from autosparse.tasks.cluster.connection import Cluster, connected
from autosparse.tasks.cluster.jobs import run_training_job
from autosparse.tasks.engine.run import job_config
from autosparse.tasks.prune_round import round_inputs
from autosparse.tasks.worker.irp_round import run_round
from autosparse.tasks.worker.retrain_arm import ArmInputs, retrain_arm

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    patch = pytest.MonkeyPatch()
    patch.setenv("AUTOSPARSE_HOME", str(tmp_path_factory.mktemp("home")))
    here = settings.load()
    settings.export(here)
    with connected(here) as found:
        yield found
    patch.undo()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "storage"))


def spec() -> ExperimentSpec:
    return override(smoke(), {"irp.train.epochs": 2, "irp.rounds": 2})


def run(
    cluster: Cluster, store: Store, one: ExperimentSpec, index: int, *, job: JobSpec | None = None, events: list | None = None
) -> dict[str, Any]:
    run_paths, network = paths.RunPaths("test"), one.irp.networks[0]
    inputs = dataclasses.replace(round_inputs(one, run_paths, network, 0, index), ticket_densities=(0.2,))
    return run_training_job(
        cluster,
        store,
        name=f"round-{index}",
        folder="training",
        loop=run_round,
        config=job_config(one, store, run_paths, inputs),
        job=job or one.irp.job,
        on_event=(events if events is not None else []).append,
    )


def test_two_rounds_train_cut_and_rewind(cluster: Cluster, store: Store) -> None:
    one, events = spec(), []
    first = run(cluster, store, one, 0, events=events)
    second = run(cluster, store, one, 1)
    weights = first["weights"]
    assert [event["epoch"] for event in events if event["kind"] == "epoch"] == [0, 1]
    assert first["density"] == 1.0
    assert first["kept"] == round(0.1**0.5 * weights)
    assert second["density"] == first["kept"] / weights
    assert second["kept"] == round(0.1 * weights)
    source = paths.RunPaths("test").source(one.irp.networks[0].label, 0)
    before, after = (load_mask(store.read(paths.mask(f"{source}/round-{index:03d}"))) for index in range(2))
    assert all(not (after[name] & ~before[name]).any() for name in after), "a cut weight came back"
    initial, rewound = (load_tensors(store.read(key)) for key in (paths.initial_state(source), paths.rewind_state(source)))
    assert all(torch.equal(initial[name], rewound[name]) for name in initial)
    trained = load_tensors(store.read(paths.weights(f"{source}/round-001")))
    assert all(not trained[name][~before[name]].any() for name in before), "a masked weight was trained"
    ticket = load_mask(store.read(paths.ticket(source, 0.2)))
    assert masks.kept(ticket) == round(0.2 * weights)


def test_two_workers_end_where_one_ends(cluster: Cluster, tmp_path: Path) -> None:
    """LeNet has no BatchNorm, so halves of a batch give the same mean gradient up to rounding."""
    ends = []
    for workers in (1, 2):
        store = open_store(str(tmp_path / f"storage-{workers}"))
        report = run(cluster, store, spec(), 0, job=JobSpec(workers=workers))
        source = paths.RunPaths("test").source("lenet300-100", 0)
        ends.append((report, load_tensors(store.read(paths.weights(f"{source}/round-000"))), store.read(paths.mask(f"{source}/round-000"))))
    (one, weights_one, mask_one), (two, weights_two, mask_two) = ends
    assert one["accuracy"] == pytest.approx(two["accuracy"], abs=0.01)
    for name, tensor in weights_one.items():
        torch.testing.assert_close(tensor, weights_two[name], rtol=1e-3, atol=1e-5)
    differ = sum(int((a != load_mask(mask_two)[name]).sum()) for name, a in load_mask(mask_one).items())
    assert differ <= 4  # weights at the threshold may swap


def test_a_late_rewind_returns_to_the_state_of_that_step(cluster: Cluster, store: Store) -> None:
    one = override(spec(), {"irp.rewind_step": 3})
    run(cluster, store, one, 0)
    source = paths.RunPaths("test").source("lenet300-100", 0)
    initial, rewound = (load_tensors(store.read(key)) for key in (paths.initial_state(source), paths.rewind_state(source)))
    assert not torch.equal(
        initial["body.0.weight"] if "body.0.weight" in initial else next(iter(initial.values())), next(iter(rewound.values()))
    )
    second = run(cluster, store, one, 1)
    per_epoch = 512 // 128
    assert second["epochs"][0]["step"] == per_epoch
    assert second["epochs"][-1]["step"] == 2 * per_epoch


def test_divergence_is_our_own_error_and_is_not_retried(cluster: Cluster, store: Store) -> None:
    events: list[dict] = []
    broken = override(spec(), {"irp.train.lr": 1e30, "irp.train.schedule": "constant"})
    with pytest.raises(DivergedError, match=r"train\.loss"):
        run(cluster, store, broken, 0, events=events)
    assert not [event for event in events if event["kind"] == "epoch"]


def test_an_arm_without_mask_is_dense(cluster: Cluster, store: Store) -> None:
    one = spec()
    inputs = ArmInputs(
        network=one.irp.networks[0],
        data=one.data,
        train=dataclasses.replace(one.fanout.train, epochs=1),
        seed=10,
        control=None,
        mask=None,
        method=None,
        state=None,
        start_step=0,
        step="arm",
    )
    config = job_config(one, store, paths.RunPaths("test"), inputs)
    report = run_training_job(
        cluster, store, name="arm", folder="training", loop=retrain_arm, config=config, job=JobSpec(), on_event=lambda event: None
    )
    assert report["kept"] == report["weights"]
    assert len(report["epochs"]) == 1


def test_what_can_never_be_placed_is_refused_at_once(cluster: Cluster, store: Store) -> None:
    start = time.monotonic()
    with pytest.raises(CapacityError, match=r"job\.cpus_per_worker: 64 workers x 1 = 64 is not allowed; allowed: at most"):
        run(cluster, store, spec(), 0, job=JobSpec(workers=64))
    with pytest.raises(CapacityError, match=r"job\.gpus_per_worker: 1 workers x 8 = 8 is not allowed"):
        cluster.slots(JobSpec(gpus_per_worker=8.0))
    assert time.monotonic() - start < 5
