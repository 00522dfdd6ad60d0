"""What an IRP round costs beyond its training: start of the Ray Train job, data, checkpoints, scores, cut, mask, report.

Overhead = wall time of the round's job minus the seconds its epochs took. Target on two cores: median of 5 at most 5 s, and at most 8 s
where two sources run side by side.
"""

import argparse
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from autosparse.flows.recipes import small_cifar
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import override
from autosparse.storage import paths
from autosparse.storage.open_store import open_store
from autosparse.tasks import settings
from autosparse.tasks.cluster.connection import Cluster, connected
from autosparse.tasks.cluster.jobs import run_training_job
from autosparse.tasks.engine.run import job_config
from autosparse.tasks.prune_round import round_inputs
from autosparse.tasks.worker.irp_round import run_round
from benchmarks.reporting import arguments, report

SIDE_BY_SIDE = (1, 2)  # sources at once


def main() -> None:
    """Rounds of one source after another on one Ray, as the flow runs them; then of two sources at once."""
    options = arguments(__doc__, _add)
    spec = override(small_cifar(), {**_data(options.data), "irp.train.epochs": 1, "irp.rounds": options.repeat + 1})
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AUTOSPARSE_HOME"] = folder
        here = settings.load()
        settings.export(here)
        with connected(here) as cluster:
            for sources in SIDE_BY_SIDE:
                with ThreadPoolExecutor(sources) as pool:
                    each = list(pool.map(partial(overheads, cluster, here.storage, spec, f"bench{sources}"), range(sources)))
                found = [overhead for one in each for overhead in one[1:]]
                rows.append(
                    {
                        "sources_at_once": sources,
                        "overhead_s_median": round(statistics.median(found), 2),
                        "overhead_s_min": round(min(found), 2),
                        "overhead_s_max": round(max(found), 2),
                        "first_round_s": round(max(one[0] for one in each), 2),
                        "n": len(found),
                    }
                )
    report("IRP round", rows, options)


def overheads(cluster: Cluster, storage: str, spec: ExperimentSpec, name: str, seed: int) -> list[float]:
    """Seconds beyond training of each round of the source with that seed."""
    store, run, network, found = open_store(storage), paths.RunPaths(name), spec.irp.networks[0], []
    for index in range(spec.irp.rounds):
        start = time.monotonic()
        done = run_training_job(
            cluster,
            store,
            name=f"{name}-{seed}-round-{index}",
            folder="training",
            loop=run_round,
            config=job_config(spec, store, run, round_inputs(spec, run, network, seed, index)),
            job=spec.irp.job,
            on_event=lambda event: None,
        )
        found.append(time.monotonic() - start - sum(epoch["seconds"] for epoch in done["epochs"]))
    return found


def _data(folder: str | None) -> dict[str, object]:
    if folder:
        return {"data.path": str(Path(folder).resolve())}
    return {"data.name": "digits", "data.train_limit": None, "data.test_limit": None, "data.mean": [], "data.std": []}


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", help="folder with CIFAR-10 as Parquet (default: the bundled digits)")
    parser.add_argument("--repeat", type=int, default=5)


if __name__ == "__main__":
    main()
