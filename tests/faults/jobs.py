"""Rounds as bare Ray Train jobs, without Prefect and MLflow, with faults in their workers.

`python -m tests.faults.jobs HOME STORAGE FAULTS` is a driver of its own, to be killed; it prints the result as JSON.
"""

import hashlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.train
import torch

from autosparse.flows.recipes import smoke
from autosparse.models.errors import AutosparseError
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import override
from autosparse.models.specs.run_specs import JobSpec
from autosparse.storage import paths
from autosparse.storage.open_store import open_store
from autosparse.storage.store import Store
from autosparse.tasks import settings
from autosparse.tasks.cluster.connection import Cluster, connected
from autosparse.tasks.cluster.jobs import run_training_job, value_or_raise
from autosparse.tasks.cluster.orphans import sweep
from autosparse.tasks.engine.run import job_config
from autosparse.tasks.prune_round import round_inputs
from autosparse.tasks.worker.inputs import Launch, launched
from autosparse.tasks.worker.irp_round import run_round
from autosparse.tasks.worker.retrain_arm import retrain_arm
from tests.faults.runs import INJECT
from tests.pipeline.command_line import ROOT, environment, without_seconds

EPOCHS, PER_EPOCH = 3, 4  # steps: 512 images in batches of 128
TICKET = 0.2  # a density that round 1 passes
MID_EPOCH = PER_EPOCH + 2  # the call of a step in the middle of the second epoch
FOLDER, NAME = "training", "round-0"


@dataclass
class Round:
    """Round 0 in a store of its own, or the one after it: what it told its driver, and what is left of it."""

    store: Store
    told: list[dict[str, Any]] = field(default_factory=list)

    @property
    def epochs(self) -> list[int]:
        """The epochs that the workers told of, in order, repeated ones included."""
        return [event["epoch"] for event in self.told if event["kind"] == "epoch"]

    @property
    def restarts(self) -> list[str]:
        """What was said of each restart."""
        return [event["message"] for event in self.told if event["kind"] == "restart"]

    @property
    def snapshot(self) -> Path:
        """The file that Ray Train resumes from."""
        return Path(self.store.root) / FOLDER / NAME / "checkpoint_manager_snapshot.json"

    @property
    def source(self) -> str:
        """Where the states and the rounds are."""
        return paths.RunPaths("test").source("lenet300-100", 0)

    def config(self, one: ExperimentSpec, index: int) -> dict[str, Any]:
        """What the job of round `index` is told."""
        run_paths = paths.RunPaths("test")
        inputs = round_inputs(one, run_paths, one.irp.networks[0], 0, index)
        return job_config(one, self.store, run_paths, replace(inputs, ticket_densities=(TICKET,)))

    def run(self, cluster: Cluster, *faults: dict[str, Any], job: JobSpec | None = None, **changes: Any) -> dict[str, Any]:
        """Its report; `changes` are fields of the spec. Errors as `run_training_job`."""
        one = spec(**changes)
        return run_training_job(
            cluster,
            self.store,
            name=NAME,
            folder=FOLDER,
            loop=struck_round,
            config=self.config(one, 0) | {"faults": list(faults)},
            job=job or one.irp.job,
            on_event=self.told.append,
        )

    def run_here(self, index: int = 0, **changes: Any) -> dict[str, Any]:
        """The report of round `index`, by the same body in this process, where it costs no start of workers. Errors as `run`."""
        one, threads = spec(**changes), torch.get_num_threads()
        events = SimpleNamespace(put=self.told.append)
        sent = launched(self.config(one, index), Launch(job=NAME, resources=one.irp.job), events)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ray.train, "report", lambda metrics, checkpoint=None: None)
            patch.setattr(ray.train, "get_checkpoint", lambda: None)
            try:
                return value_or_raise(run_round(sent))
            finally:
                torch.set_num_threads(threads)
                torch.set_flush_denormal(False)

    def result(self, report: dict[str, Any]) -> dict[str, Any]:
        """What must be equal bit for bit: all tensors that the round stored, and its figures."""
        keys = [key for key in self.store.list("runs") if key.endswith(".safetensors")]
        (figures,) = without_seconds([{**report, "epochs": without_seconds(report["epochs"])}])
        tensors = {key: hashlib.sha256(self.store.read(key)).hexdigest() for key in keys}
        return json.loads(json.dumps({"tensors": tensors, "report": figures}))


def spec(**changes: Any) -> ExperimentSpec:
    """The smoke recipe with three epochs a round: there are checkpoints to lose."""
    return override(smoke(), {"irp.train.epochs": EPOCHS, **changes})


def fresh(folder: Path) -> Round:
    """A round that nobody has begun."""
    return Round(open_store(str(folder / "storage")))


def struck_round(config: dict[str, Any]) -> dict[str, Any]:
    """The body of a round in a worker, after the faults of its config were put in place."""
    return run_round(_struck(config))


def struck_arm(config: dict[str, Any]) -> dict[str, Any]:
    """The same for an arm."""
    return retrain_arm(_struck(config))


def _struck(config: dict[str, Any]) -> dict[str, Any]:
    inject = importlib.import_module("sitecustomize")
    for fault in config.pop("faults"):
        inject.spoil(importlib.import_module(fault["where"].partition(":")[0]), [fault])
    return config


def workers_import_ours(patch: pytest.MonkeyPatch) -> None:
    """Have processes that are started from now on find the faults and this file."""
    patch.setenv("PYTHONPATH", f"{INJECT}{os.pathsep}{ROOT}")


@contextmanager
def ray_of_ones_own(home: Path, **environment: str) -> Iterator[Cluster]:
    """A connected Ray whose workers can be struck."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOSPARSE_HOME", str(home))
        workers_import_ours(patch)
        for name, value in environment.items():
            patch.setenv(name, value)
        here = settings.load()
        settings.export(here)
        with connected(here) as cluster:
            yield cluster


@contextmanager
def driver(home: Path, one: Round, *faults: dict[str, Any], **more: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs the round and prints its result; it is killed at the end of the block."""
    command = [sys.executable, "-m", "tests.faults.jobs", str(home), one.store.root, json.dumps(faults)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(home, **more), cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def printed(process: subprocess.Popen[str], seconds: float) -> dict[str, Any]:
    """What a driver prints at its end."""
    return json.loads(process.communicate(timeout=seconds)[0].splitlines()[-1])


def main(home: str, storage: str, faults: str) -> None:
    """One round in this process, which begins as `autosparse run` does."""
    one = Round(open_store(storage))
    sweep(settings.load())
    try:
        with ray_of_ones_own(Path(home)) as cluster:
            report = one.run(cluster, *json.loads(faults))
        told = {"result": one.result(report), "epochs": one.epochs, "restarts": len(one.restarts)}
    except AutosparseError as error:
        told = {"error": type(error).__name__}
    print(json.dumps(told), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
