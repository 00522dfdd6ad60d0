"""What a fan-out costs beyond its training: N arms through the product, and the same arms in a bare loop, one process per slot.

The product is the real subflow: Prefect tasks, scorings, arms back to back on Ray, MLflow, reports. Its time is that of the subflow, the
starts of its Ray jobs included; `start_s`, beside it, is that of Prefect's server, Ray and the run's record. The bare loop is the torch
core alone, from the same masks: its time includes the starts of its processes. Accuracies of both must be equal, arm by arm.

`beyond_s` is the median time from one order of a worker to its next, less the seconds of the epochs. Targets at 64 arms on 2 slots:
ratio >= 0.7, beyond_s <= 1.0.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

from autosparse.flows.recipes import demo, small_cifar
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import override
from autosparse.storage.open_store import open_store
from autosparse.tasks import settings as settings_module
from autosparse.tasks.services.embedded_prefect import prefect_starting
from benchmarks.reporting import arguments, report

QUIET = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL", "MLFLOW_LOGGING_LEVEL": "WARNING", "GRPC_VERBOSITY": "NONE"}
DENSITIES = 0.2, 0.1, 0.05, 0.02
Arm = tuple[int, str]  # seed, key of its mask


def main() -> None:
    """A row per number of arms."""
    options = arguments(__doc__, _add)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(QUIET, AUTOSPARSE_HOME=folder)
        settings = settings_module.load()
        settings_module.export(settings)
        with prefect_starting(settings):
            import ray  # noqa: F401  # while the server starts
        rows = [measured(options, settings, count) for count in options.arms]
    report("fan-out", rows, options)


def measured(options: argparse.Namespace, settings: settings_module.Settings, count: int) -> dict[str, Any]:
    """One row: the product, then the bare loop."""
    spec = spec_of(options, count)
    found = product(spec, f"bench-{count}")
    arms, beyond = found["arms"], found["beyond"]
    start = time.monotonic()
    accuracies = bare(
        spec, settings.storage, [(arm["seed"], found["masks"][place_of(arm)]) for arm in arms], found["slots"], settings.cache
    )
    seconds = time.monotonic() - start
    differ = [place_of(arm) for arm, accuracy in zip(arms, accuracies, strict=True) if arm["accuracy"] != accuracy]
    assert not differ, f"{differ}: another accuracy than in the bare loop, so these are not the same arms"
    peaks = [arm["peak_memory_bytes"] / 2**20 for arm in sorted(arms, key=place_of)]
    return {
        "arms": count,
        "slots": found["slots"],
        "product_s": round(found["seconds"], 1),
        "bare_s": round(seconds, 1),
        "arms_per_min": round(60 * count / found["seconds"], 1),
        "bare_arms_per_min": round(60 * count / seconds, 1),
        "ratio": round(seconds / found["seconds"], 2),
        "beyond_s": round(statistics.median(beyond), 2) if beyond else None,
        "training_s": round(statistics.median(arm["training_seconds"] for arm in arms), 2),
        "first_peak_mib": round(peaks[0]),
        "last_peak_mib": round(peaks[-1]),
        "peak_mib": round(max(peaks)),
        "start_s": round(found["start"], 1),
    }


def spec_of(options: argparse.Namespace, count: int) -> ExperimentSpec:
    """`count` arms of random masks, which a fan-out cuts at every density from one scoring a seed."""
    base = demo() if options.size == "demo" else override(small_cifar(), {"data.path": str(Path(options.data).resolve())})
    plain = {"methods": ["random"], "densities": list(DENSITIES), "seeds": list(range(100, 100 + count // len(DENSITIES)))}
    plain |= {"dense": False, "ticket": False, "compact": False}
    changes: dict[str, Any] = {f"fanout.{name}": value for name, value in plain.items()}
    if options.epochs:
        changes["fanout.train.epochs"] = options.epochs
    return override(base, changes)


def place_of(arm: dict[str, Any]) -> tuple[int, float]:
    """Which arm it is."""
    return arm["seed"], arm["density"]


def product(spec: ExperimentSpec, name: str) -> dict[str, Any]:
    """The fan-out of the spec as a run has it: reports of its arms, keys of masks by seed, and what each arm took beyond its training."""
    from prefect import flow
    from prefect.task_runners import ThreadPoolTaskRunner

    from autosparse.flows.target_fanout import target_fanout
    from autosparse.tasks.cluster.series import Series
    from autosparse.tasks.engine.run import open_run

    taken: dict[str, list[tuple[str, float]]] = {}
    heard = Series._heard

    def noted(series: Series, job: str, event: dict[str, Any]) -> None:
        if event["kind"] == "taken":
            taken.setdefault(job, []).append((event["order"], time.monotonic()))
        heard(series, job, event)

    @flow(name="bench-fanout", validate_parameters=False)
    def bench() -> dict[str, Any]:
        start = time.monotonic()
        with open_run(spec, name) as run:
            begun = time.monotonic()
            runner: Any = ThreadPoolTaskRunner(max_workers=run.cluster.slots(run.spec.fanout.job))  # as the pipeline does
            arms = target_fanout.with_options(task_runner=runner)(run, name)
            seconds = time.monotonic() - begun
            scores = {seed: run.paths.scores(spec.fanout.targets[0].label, seed, "random") for seed in spec.fanout.seeds}
            cuts = {seed: run.store.read_json(f"{key}/report.json")["cuts"] for seed, key in scores.items()}
            trained = {
                run.paths.job(run.paths.arm(arm["target"], arm["seed"], "random", arm["density"], None)): arm["training_seconds"]
                for arm in arms
            }
            return {
                "arms": arms,
                "masks": {(seed, density): of[f"{density:g}"]["mask"] for seed, of in cuts.items() for density in DENSITIES},
                "seconds": seconds,
                "start": begun - start,
                "slots": run.cluster.slots(spec.fanout.job),
                "beyond": [
                    later - at - trained[order]
                    for orders in taken.values()
                    for (order, at), (_, later) in pairwise(orders)
                    if order in trained
                ],
            }

    with patch.object(Series, "_heard", noted):
        return bench()


def bare(spec: ExperimentSpec, storage: str, arms: list[Arm], processes: int, cache: Path) -> list[float]:
    """Accuracies of the arms, trained one after another in each of so many processes."""
    context = multiprocessing.get_context("spawn")
    shares = [arms[index::processes] for index in range(processes)]
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        found = [pool.submit(bare_arms, spec, storage, share, cache) for share in shares]
        accuracies = {key: accuracy for future in found for key, accuracy in future.result().items()}
    return [accuracies[key] for _, key in arms]


def bare_arms(spec: ExperimentSpec, storage: str, arms: list[Arm], cache: Path) -> dict[str, float]:
    """Accuracies by mask, by the torch core alone."""
    from dataclasses import replace

    import torch

    from autosparse.models.networks.build import build_network
    from autosparse.models.networks.layout import memory_format
    from autosparse.models.training.images import channel_statistics, to_images
    from autosparse.models.training.loop import evaluate, fit
    from autosparse.models.training.trainer import Trainer
    from autosparse.storage.image_datasets import load_images
    from autosparse.storage.mask_files import load_mask

    warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # images lie in the cache
    fanout, data, store = spec.fanout, spec.data, open_store(storage)
    torch.set_flush_denormal(True)
    torch.set_num_threads(fanout.job.cpus_per_worker)
    arrays = load_images(data, cache)
    if not data.mean:
        mean, std = channel_statistics(torch.from_numpy(arrays.train_images))
        data = replace(data, mean=tuple(mean), std=tuple(std))
    device, found = torch.device("cpu"), {}
    train, test = to_images(arrays.train_images, arrays.train_labels, device), to_images(arrays.test_images, arrays.test_labels, device)
    for seed, key in arms:
        network = build_network(fanout.targets[0].network, image_shape=arrays.image_shape, num_classes=len(arrays.classes), seed=seed)
        network = network.to(memory_format=memory_format(network, channels_last=fanout.job.channels_last))  # type: ignore[call-overload]
        trainer = Trainer(
            network=network,
            forward=network,
            spec=fanout.train,
            data=data,
            job=fanout.job,
            train=train,
            test=test,
            seed=seed,
            mask=load_mask(store.read(key), source=key),
        )
        fit(trainer, on_epoch=lambda epoch: None)
        found[key] = evaluate(trainer)["accuracy"]
    return found


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--arms",
        type=int,
        nargs="+",
        default=[4, 16, 64],
        help="numbers of arms, multiples of four: a seed has four densities (default %(default)s)",
    )
    parser.add_argument("--size", choices=("demo", "small_cifar"), default="demo")
    parser.add_argument("--data", help="folder with CIFAR-10 as Parquet, for small_cifar")
    parser.add_argument("--epochs", type=int, help="fewer or more than the recipe's")


if __name__ == "__main__":
    main()
