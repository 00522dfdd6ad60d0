"""Fractions of a GPU: two arms side by side on one, each in a Ray Train job of its own. Needs Ray; on the CPU two jobs share the cores."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from autosparse.models.specs.run_specs import JobSpec
from autosparse.storage import paths
from autosparse.storage.checkpoints import load_tensors
from autosparse.storage.open_store import open_store

pytest.importorskip("ray.train", reason="Ray is not installed: the torch core alone is tested")

pytestmark = [pytest.mark.gpu, pytest.mark.ray, pytest.mark.timeout(500)]


def test_two_jobs_share_a_gpu(device: torch.device, tmp_path: Path) -> None:
    from autosparse.tasks.cluster.series import Series
    from autosparse.tasks.engine.run import job_config
    from autosparse.tasks.worker.retrain_arm import ArmInputs, retrain_arm
    from tests.faults.jobs import ray_of_ones_own, spec

    one, store = spec(), open_store(str(tmp_path / "store"))
    job = JobSpec(gpus_per_worker=0.5 if device.type == "cuda" else 0.0)
    told: list[str] = []

    def train(series: Series, name: str) -> dict[str, Any]:
        given: dict[str, Any] = {"network": one.irp.networks[0], "data": one.data, "train": one.irp.train, "seed": 1, "start_step": 0}
        inputs = ArmInputs(**given, control=None, mask=None, method=None, state=None, step=name, compact=False, narrow=None, initial=None)
        config = job_config(one, store, paths.RunPaths("test"), inputs)
        heard = lambda event: told.append(name) if event["kind"] == "epoch" else None  # noqa: E731
        rest = {"group": "a", "alone": False, "earlier": (f"training/{name}",), "on_event": heard}
        return series.run(name=name, body=retrain_arm, config=config, **rest)

    with ray_of_ones_own(tmp_path / "home") as cluster:
        series = Series(cluster, store, job=job, name="series", folder="training/series")
        assert series.slots >= 2
        with ThreadPoolExecutor(2) as pool:
            reports = list(pool.map(lambda name: train(series, name), ("one", "two")))
        started = series._started
        series.close()
    assert started == 2 and set(told) == {"one", "two"}
    assert reports[0]["loss"] == pytest.approx(reports[1]["loss"], rel=0.01)
    assert all(tensor.isfinite().all() for name in ("one", "two") for tensor in load_tensors(store.read(paths.weights(name))).values())
