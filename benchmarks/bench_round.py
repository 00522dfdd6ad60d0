"""What an IRP round costs beyond its training: start of the Ray Train job, data, checkpoints, scores, cut, mask, report.

Overhead = wall time of the round's job minus the seconds its epochs took. Target: median of 5 at most 5 s on two cores.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from autosparse.flows.recipes import small_cifar
from autosparse.models.specs.fields import override
from autosparse.storage import paths
from autosparse.storage.open_store import open_store
from autosparse.tasks import settings
from autosparse.tasks.cluster.connection import connected
from autosparse.tasks.cluster.jobs import run_training_job
from autosparse.tasks.engine.run import job_config
from autosparse.tasks.prune_round import round_inputs
from autosparse.tasks.worker.irp_round import run_round
from benchmarks.reporting import arguments, report


def main() -> None:
    """Rounds one after another on one Ray, as the flow runs them."""
    options = arguments(__doc__, _add)
    spec = override(small_cifar(), {**_data(options.data), "irp.train.epochs": 1, "irp.rounds": options.repeat + 1})
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AUTOSPARSE_HOME"] = folder
        here = settings.load()
        settings.export(here)
        store, run, network = open_store(here.storage), paths.RunPaths("bench"), spec.irp.networks[0]
        overheads, walls = [], []
        with connected(here) as cluster:
            for index in range(options.repeat + 1):
                config = job_config(spec, store, run, round_inputs(spec, run, network, 0, index))
                start = time.monotonic()
                done = run_training_job(
                    cluster,
                    store,
                    name=f"round-{index}",
                    folder="training",
                    loop=run_round,
                    config=config,
                    job=spec.irp.job,
                    on_event=lambda event: None,
                )
                walls.append(time.monotonic() - start)
                overheads.append(walls[-1] - sum(epoch["seconds"] for epoch in done["epochs"]))
    rows = [
        {
            "overhead_s_median": round(statistics.median(overheads[1:]), 2),
            "overhead_s_min": round(min(overheads[1:]), 2),
            "overhead_s_max": round(max(overheads[1:]), 2),
            "first_round_s": round(overheads[0], 2),
            "n": options.repeat,
        }
    ]
    report("IRP round", rows, options)


def _data(folder: str | None) -> dict[str, object]:
    if folder:
        return {"data.path": str(Path(folder).resolve())}
    return {"data.name": "digits", "data.train_limit": None, "data.test_limit": None, "data.mean": [], "data.std": []}


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", help="folder with CIFAR-10 as Parquet (default: the bundled digits)")
    parser.add_argument("--repeat", type=int, default=5)


if __name__ == "__main__":
    main()
