"""Where Ray Train jobs are controlled: in processes that stay, one per job at once, each of which takes the next job when it is done.

Ray Train starts four processes per job, each of which imports Ray: a controller, one that cleans up after it, one on which ranks wait for
each other, and the worker; a worker with variables of its own imports it twice. Here the controller runs in the launcher, the driver cleans
up after a launcher that died, and a worker has the environment of its node: seven seconds of a round become four (benchmarks/bench_round).
"""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.train
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2._internal.execution.worker_group.placement_group_handle import DefaultPlacementGroupHandle
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from autosparse.models import errors
from autosparse.models.specs.fields import from_plain
from autosparse.tasks.cluster.process_group import NodeTorchConfig
from autosparse.tasks.worker.inputs import Launch

COLLECTIVE_TIMEOUT_S = 300
OF_RAY_TRAIN = "RAY_TRAIN_"  # begins the variables that its controller reads

Loop = Callable[[dict[str, Any]], dict[str, Any]]


class LauncherDiedError(RayError):
    """The process that controls a job was killed or crashed."""


class Launchers:
    """The launchers of one driver. `options` are those of an actor that belongs to it."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._all: list[Any] = []
        self._free: list[Any] = []
        self._stopped = ""
        self._free.append(self._another())  # imports Ray Train while the run still looks around

    @contextmanager
    def one(self) -> Iterator[Any]:
        """A launcher for one job. Raises LauncherDiedError where it dies inside the block, JobError after `stop`."""
        with self._lock:
            if self._stopped:
                raise errors.JobError(self._stopped)
            taken = self._free.pop() if self._free else self._another()
        try:
            yield taken
        except RayActorError as error:
            if isinstance(error, RayTaskError):  # another actor died, and the launcher says so
                raise
            self._all.remove(taken)
            raise LauncherDiedError(str(error)) from error
        finally:
            if taken in self._all:
                self._free.append(taken)

    def stop(self, why: str) -> None:
        """Kill all, and with them their jobs."""
        with self._lock:
            self._stopped = why
        for one in tuple(self._all):  # who waits for one takes it out
            ray.kill(one)  # workers end with their owner

    def _another(self) -> Any:
        variables = {name: value for name, value in os.environ.items() if name.startswith(OF_RAY_TRAIN)}
        self._all.append(Launcher.options(**self._options).remote(variables))
        return self._all[-1]


@ray.remote
class Launcher:
    """Runs `fit()` of one Ray Train job after the other."""

    def __init__(self, variables: dict[str, str]) -> None:
        os.environ.update(variables)  # of the driver, whose machine need not be the one whose Ray started this

    def fit(self, loop: Loop, config: dict[str, Any], run_config: ray.train.RunConfig) -> Any:
        """The return value of rank 0 of a job of the shape that `config` says. Raises ray.train.TrainingFailedError."""
        job = from_plain(Launch, config["launch"]).resources
        trainer = LeanTrainer(
            loop,
            train_loop_config=config,
            backend_config=NodeTorchConfig(backend="nccl" if job.gpus_per_worker else "gloo", timeout_s=COLLECTIVE_TIMEOUT_S),
            scaling_config=ray.train.ScalingConfig(
                num_workers=job.workers,
                use_gpu=job.gpus_per_worker > 0,
                resources_per_worker={"CPU": job.cpus_per_worker} | ({"GPU": job.gpus_per_worker} if job.gpus_per_worker else {}),
            ),
            run_config=run_config,
        )
        return trainer.fit().return_value


class LeanWorkerGroup(WorkerGroup):
    """Workers in the environment of their node, on resources that have a name, by which the driver finds them when the launcher is gone."""

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: Any) -> Any:
        return custom_runtime_env

    def _create_placement_group(self, scaling_config: Any, worker_group_context: Any) -> DefaultPlacementGroupHandle:
        bundles = [worker_group_context.resources_per_worker] * worker_group_context.num_workers
        name = placed_as(str(self._train_run_context.run_config.name))
        return DefaultPlacementGroupHandle(placement_group(bundles, strategy=worker_group_context.placement_strategy, name=name))


class LeanController(TrainController):
    """Controls such workers."""

    worker_group_cls = LeanWorkerGroup


class LeanTrainer(DataParallelTrainer):
    """A Ray Train job that is controlled in the process that calls `fit()`, and without data sets of Ray Data, which no job has."""

    def _create_default_callbacks(self) -> list[Any]:
        needless = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, needless)]

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        controller = LeanController(**parts)
        asyncio.run(controller.run())
        return controller.get_result()


def placed_as(job: str) -> str:
    """What the resources of a Ray Train job of this driver are called."""
    return f"{ray.get_runtime_context().get_job_id()}/{job}"


def give_back(job: str) -> None:
    """Remove what is placed for a job of this driver, its workers with it: Ray keeps it for a launcher that died until its driver ends."""
    for number, one in placement_group_table().items():
        if one["name"] == placed_as(job) and one["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(number))))
