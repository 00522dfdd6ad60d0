"""The loop of a long-lived job: takes one order after another. Each is the body of an ordinary job, in a process that stays warm."""

import contextlib
import gc
import pkgutil
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.collective import broadcast_from_rank_zero

from autosparse.models.specs.fields import from_plain
from autosparse.tasks.worker.inputs import Launch

CLEAR_REFS, PEAK = Path("/proc/self/clear_refs"), "5"  # Linux: the peak of this process's memory begins anew


def serve(config: dict[str, Any]) -> dict[str, Any]:
    """Take orders until there are none."""
    context, orders, launch = ray.train.get_context(), config["orders"], from_plain(Launch, config["launch"])
    rank, ranks = context.get_world_rank(), context.get_world_size()
    while True:
        order: Any = ray.get(orders.take.remote(launch.job, config["group"], config["patience"])) if rank == 0 else None
        order = broadcast_from_rank_zero(order) if ranks > 1 else order
        if order is None:
            return {}
        if rank == 0:
            config["events"].put({"job": launch.job, "kind": "taken", "order": order["name"]})
        if rank == 0 or not order["alone"]:
            renew(compiles=launch.resources.compile)
            outcome = pkgutil.resolve_name(order["body"])(order["config"])
        if rank == 0:
            ray.get(orders.done.remote(launch.job, outcome))


def renew(*, compiles: bool) -> None:
    """Have the next order find this process as a new one. Nothing draws from torch's global generators outside of `seeding.scoped`."""
    gc.collect()  # networks with hooks are circles: without this the memory of a worker grows with its arms
    with contextlib.suppress(OSError):
        CLEAR_REFS.write_text(PEAK)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    if compiles:
        torch.compiler.reset()  # it gives up on code that it has compiled for several networks
