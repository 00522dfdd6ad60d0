"""From what each step costs to the hours on a clock: what waits for what, and what runs side by side."""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autosparse.models.specs.run_specs import JobSpec
from autosparse.storage.cpus import machine_slots
from autosparse.tasks.cluster.capacity import check_capacity, slots_of
from autosparse.tasks.planning import steps as kinds
from autosparse.tasks.planning.costs import SERIES, START, STARTED, Cost, Rates, beside_of
from autosparse.tasks.planning.steps import PlannedStep

Costed = Sequence[tuple[PlannedStep, Cost]]
IN_TURN = (kinds.DATA, kinds.FEATURES, kinds.FIT, kinds.REGISTRATION, kinds.SUMMARY)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where jobs run: what the machine or cluster has in all."""

    cpus: float
    gpus: float
    name: str = "this machine"

    def slots(self, job: JobSpec) -> int:
        """How many such jobs run at once. Raises CapacityError where not even one does."""
        check_capacity(job, self.cpus, self.gpus)
        return slots_of(job, self.cpus, self.gpus)

    @property
    def words(self) -> str:
        """`2 CPUs`, `16 CPUs and 1 GPU`."""
        return " and ".join(
            f"{count:g} {name}{'s' if count != 1 else ''}" for count, name in ((self.cpus, "CPU"), (self.gpus, "GPU")) if count
        )


def machine() -> Place:
    """This one, as a Ray that is started on it counts."""
    import torch

    return Place(cpus=machine_slots(), gpus=torch.cuda.device_count())


def wall_seconds(costed: Costed, place: Place, rates: Rates) -> float | None:
    """Seconds until all these steps are done; None where the work of one is not known. Nothing to do takes nothing.

    Rounds of a source come one after another, sources side by side; scorings and arms fill the slots of the fan-out. Starts of jobs side by
    side share the CPUs; measured ones did already.
    """
    if not costed:
        return 0.0
    if any(cost.work is None for _, cost in costed):
        return None
    total = beside_of(START, rates) + sum(cost.seconds or 0.0 for step, cost in costed if step.kind in IN_TURN)
    chains: dict[tuple[str, int], float] = {}
    rounds = [(step, cost) for step, cost in costed if step.kind == kinds.ROUND]
    sources = {_source(step) for step, _ in rounds}
    if rounds:
        slots = place.slots(rounds[0][0].job)
        crowd = 1.0 if kinds.ROUND in rates.fixed else _crowd(min(slots, len(sources)), place)
        for step, cost in rounds:
            chains[_source(step)] = chains.get(_source(step), 0.0) + (cost.work or 0.0) + cost.beside * crowd
        total += makespan(chains.values(), slots)
    arms = [(step, cost) for step, cost in costed if step.kind in (kinds.SCORING, kinds.ARM)]
    if arms:
        slots = min(place.slots(arms[0][0].job), len(arms))
        crowd = 1.0 if SERIES in rates.fixed else _crowd(slots, place)
        total += beside_of(SERIES, rates) * crowd + makespan([cost.seconds or 0.0 for _, cost in arms], slots)
    pairs = [(step, cost) for step, cost in costed if step.kind == kinds.VALLEY]
    return total + (makespan([cost.seconds or 0.0 for _, cost in pairs], place.slots(pairs[0][0].job)) if pairs else 0.0)


def makespan(seconds: Iterable[float], slots: int) -> float:
    """When the last of several pieces of work ends that `slots` take in their order, each the next one when it is free."""
    free = [0.0] * max(1, slots)
    for one in seconds:
        heapq.heapreplace(free, free[0] + one)
    return max(free)


def _source(step: PlannedStep) -> tuple[str, int]:
    return step.network.label if step.network else "", step.seed or 0


def _crowd(at_once: int, place: Place) -> float:
    """How much longer the start of a job takes where so many start at once."""
    return max(1.0, STARTED * at_once / place.cpus)
