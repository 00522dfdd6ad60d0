"""How much a run can do in the time that somebody has: the largest rung of a ladder that fits."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from autosparse.models.errors import not_allowed

SHARE = 0.8  # of the budget that a plan may take: an estimate is an estimate
START_S = 50.0  # of a run: its services, the data, features, scorer and summary
ROUND_S, ARM_S = 8.0, 1.0  # what a round and an arm take beside their training (a ResNet-8 on 2 cores; starting a job is work itself)
EVALUATION = 1 / 3  # a test image costs as much of a training image: its pass forward
BATCHES, LEAST = 2, 0.25  # what is left of few images: so many batches, and as much training as this share of what all the starts take
METHODS = ("random", "synflow", "scorer", "snip", "magnitude", "erk", "smallest_paths", "grasp")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The size of a run; `seconds` is what it is estimated to take, and `fits` whether that is within the budget."""

    rounds: int
    epochs: int
    seeds: int  # of the IRP, and as many others of the fan-out
    methods: int  # the first of METHODS
    densities: tuple[float, ...]
    train_limit: int | None = None
    test_limit: int | None = None
    seconds: float = 0.0
    fits: bool = True


LADDER = (
    Plan(rounds=2, epochs=1, seeds=1, methods=3, densities=(0.2, 0.1)),
    Plan(rounds=4, epochs=3, seeds=1, methods=4, densities=(0.1, 0.05)),
    Plan(rounds=6, epochs=6, seeds=1, methods=5, densities=(0.1, 0.05)),
    Plan(rounds=8, epochs=15, seeds=2, methods=6, densities=(0.1, 0.05, 0.02)),
    Plan(rounds=12, epochs=50, seeds=3, methods=7, densities=(0.1, 0.05, 0.02)),
    Plan(rounds=16, epochs=160, seeds=3, methods=8, densities=(0.1, 0.05, 0.02, 0.01)),
)


def plan_of(budget_s: float, step_s: Sequence[float], images: int, slots: int, *, batch_size: int, test_images: int = 0) -> Plan:
    """The largest rung of the ladder that is estimated to take at most SHARE of the budget; else the first one on fewer images.

    `step_s` has the seconds that one training step takes, of the source network and then of every other target. `slots` jobs run
    at once. Where the budget is too small for any training, the plan does not fit and is as short as is of use.
    """
    room = budget_s * SHARE
    for rung in reversed(LADDER):
        seconds = _seconds(rung, step_s, slots, images / batch_size, test_images / batch_size)
        if seconds <= room:
            return replace(rung, seconds=seconds)
    first = LADDER[0]
    starts, one = (_seconds(first, step_s, slots, steps, steps) for steps in (0, 1))
    for_training = max(room - starts, LEAST * starts)
    limit = batch_size * max(BATCHES, int(for_training / (one - starts)))
    seconds = _seconds(first, step_s, slots, min(images, limit) / batch_size, min(test_images, limit) / batch_size)
    limits = {name: limit for name, there in (("train_limit", images), ("test_limit", test_images)) if limit < there}
    return replace(first, **limits, seconds=seconds, fits=seconds <= room)


def trainings_of(plan: Plan, targets: int) -> tuple[int, list[int]]:
    """How many rounds an IRP of one source has over all its seeds, and how many arms each target: masks, dense, tickets of the source."""
    masks = plan.seeds * (plan.methods * len(plan.densities) + 1)
    tickets = plan.seeds * len(plan.densities)
    return plan.seeds * plan.rounds, [masks + (tickets if target == 0 else 0) for target in range(targets)]


def _seconds(plan: Plan, step_s: Sequence[float], slots: int, steps: float, tests: float) -> float:
    """What a plan takes where an epoch has so many steps, and its evaluation so many batches."""
    rounds, arms = trainings_of(plan, len(step_s))
    epoch = plan.epochs * (int(steps) + tests * EVALUATION)
    in_turn = plan.rounds * -(-plan.seeds // slots)  # a round waits for the one before it, so seeds alone go side by side
    fanout = sum(count * seconds for count, seconds in zip(arms, step_s, strict=True)) / min(slots, sum(arms))
    return START_S + rounds * ROUND_S + sum(arms) * ARM_S + epoch * (in_turn * step_s[0] + fanout)


def budget_of(text: str) -> float:
    """`90s`, `5m`, `1.5h`, `1d` or `1h30m` in seconds. Raises SpecError."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text.lower())
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if "".join(map("".join, parts)) != text.lower() or not 0 < seconds <= 365 * UNITS["d"]:
        raise not_allowed("--budget", text, "a time such as 90s, 5m, 2h, 1d, at most 365d")
    return seconds


def spoken(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`, `2.1 days`."""
    for unit, name, least in ((UNITS["d"], "days", 2), (UNITS["h"], "h", 2), (UNITS["m"], "min", 2)):
        if seconds >= least * unit:
            return f"{seconds / unit:.1f}".removesuffix(".0") + f" {name}"
    return f"{seconds:.0f} s"
