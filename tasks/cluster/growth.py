"""A cluster that can grow: how far, and waiting until it has.

Ray tells how far where an autoscaler (KubeRay's, `ray up`'s) has said so. Where it cannot tell, AUTOSPARSE_GROW_SECONDS in the environment
does: whoever sets it says that waiting is worth while.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import ray
from ray._private.state import state
from ray.util.placement_group import placement_group, remove_placement_group

from autosparse.models import errors
from autosparse.models.specs.run_specs import JobSpec
from autosparse.tasks.cluster.capacity import bundle, has_room
from autosparse.tasks.limits import GROW, limit

LOOK_S = 1.0
WORD_S = 60.0  # between two lines of one wait


def most_resources() -> dict[str, float] | None:
    """What the cluster may have in all once it has grown; None where it does not grow, or nobody knows how far."""
    limits = state.get_max_resources_from_cluster_config() if limit(GROW) else None
    if not limits:
        return None
    now = ray.cluster_resources()
    return {name: max(now.get(name, 0.0), float(limits.get(name, 0))) for name in {*now, *limits}}


def is_unknown() -> bool:
    """Whether the cluster grows, but Ray does not know how far."""
    return bool(os.environ.get(GROW)) and limit(GROW) > 0 and most_resources() is None


def fits(job: JobSpec) -> bool:
    """Whether the living nodes could take the job, if nobody else used them."""
    return has_room(job, [node["Resources"] for node in ray.nodes() if node["Alive"]])


def await_growth(job: JobSpec, tell: Callable[[str], None], check: Callable[[], None]) -> None:
    """Return when the nodes of the cluster can take the job. Raises CapacityError when they cannot after AUTOSPARSE_GROW_SECONDS.

    What the autoscaler is shown is a placement group of the job's own shape: a demand of this run alone, where
    `ray.autoscaler.sdk.request_resources` has one for the whole cluster, which runs would take from each other. `check` may raise.
    """
    if fits(job) or not (is_unknown() or most_resources()):
        return
    wanted, most = bundle(job), limit(GROW)
    text = " + ".join(f"{asked:g} {name}" for name, asked in wanted.items())
    begin, said = time.monotonic(), -WORD_S
    demand: Any = placement_group([wanted] * job.workers)
    try:
        while not fits(job):
            check()
            waited = time.monotonic() - begin
            if waited > most:
                has = f"what the cluster has, which has not grown in {most:.0f} s ({GROW})"
                raise errors.CapacityError(f"job: {job.workers} workers x {text} is not allowed; allowed: {has}")
            if waited - said >= WORD_S:
                said = waited
                tell(f"waiting: the cluster grows to {job.workers} x {text}, {waited:.0f} of at most {most:.0f} s")
            time.sleep(LOOK_S)
    finally:
        remove_placement_group(demand)
