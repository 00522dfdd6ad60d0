"""The loop of a long-lived job: takes one order after another. Each is the body of an ordinary job, in a process that stays warm."""

import gc
import pkgutil
from typing import Any

import ray
import ray.train
import torch
from ray.train.collective import broadcast_from_rank_zero


def serve(config: dict[str, Any]) -> dict[str, Any]:
    """Take orders until there are none.

    An order finds the process as a new one: torch.compile, which gives up on code that it has compiled for some networks, forgets them.
    Nothing draws from torch's global generators outside of `seeding.scoped`.
    """
    context, orders, job = ray.train.get_context(), config["orders"], config["launch"]["job"]
    rank, ranks = context.get_world_rank(), context.get_world_size()
    while True:
        order: Any = ray.get(orders.take.remote(job, config["group"], config["patience"])) if rank == 0 else None
        order = broadcast_from_rank_zero(order) if ranks > 1 else order
        if order is None:
            return {}
        if rank == 0:
            config["events"].put({"job": job, "kind": "taken", "order": order["name"]})
        if rank == 0 or not order["alone"]:
            torch.compiler.reset()
            outcome = pkgutil.resolve_name(order["body"])(order["config"])
        if rank == 0:
            ray.get(orders.done.remote(job, outcome))
        gc.collect()  # networks with hooks are circles: without this the memory of a worker grows with its arms
