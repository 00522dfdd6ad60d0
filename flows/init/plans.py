"""How much a run can do in the time that somebody has: the largest rung of a ladder that fits."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from autosparse.models.errors import not_allowed
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.storage.paths import RunPaths
from autosparse.tasks.checks.preflight import data_specs, run_name
from autosparse.tasks.planning.costs import Examples, Rates
from autosparse.tasks.planning.plan import costed
from autosparse.tasks.planning.schedule import Place, wall_seconds
from autosparse.tasks.planning.words import UNITS

SHARE = 0.8  # of the budget that a plan may take: an estimate is an estimate
BATCHES, LEAST = 2, 0.25  # what is left of few images: so many batches, and as much training as this share of what all the starts take
METHODS = ("random", "synflow", "scorer", "snip", "magnitude", "erk", "smallest_paths", "grasp")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The size of a run; `seconds` is what it is estimated to take, and `fits` whether that is within the budget."""

    rounds: int
    epochs: int
    seeds: int  # of the IRP, and as many others of the fan-out, two at least
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


def plan_of(budget_s: float, spec_of: Callable[[Plan], ExperimentSpec], rates: Rates, place: Place, examples: Examples) -> Plan:
    """The largest rung of the ladder that is estimated to take at most SHARE of the budget; else the first one on fewer images.

    `spec_of` makes the spec of a plan, `examples` are those of its data without a limit. Where the budget is too small for any training,
    the plan does not fit and is as short as is of use. What a run costs is `autosparse.tasks.planning` 's to say.
    """
    room = budget_s * SHARE
    for rung in reversed(LADDER):
        seconds = estimated(spec_of(rung), rates, place, examples)
        if seconds <= room:
            return replace(rung, seconds=seconds)
    first = LADDER[0]
    spec = spec_of(first)
    batch = spec.fanout.train.batch_size
    starts, one = (estimated(spec, rates, place, Examples(count, count)) for count in (0, batch))
    for_training = max(room - starts, LEAST * starts)
    limit = batch * max(BATCHES, int(for_training / (one - starts)))
    fewer = Examples(min(examples.train, limit), min(examples.test, limit))
    seconds = estimated(spec, rates, place, fewer)
    limits = {name: limit for name, there in (("train_limit", examples.train), ("test_limit", examples.test)) if limit < there}
    return replace(first, **limits, seconds=seconds, fits=seconds <= room)


def estimated(spec: ExperimentSpec, rates: Rates, place: Place, examples: Examples) -> float:
    """Seconds of a whole run of the spec where its data set has so many examples."""
    known = replace(rates, examples={data: examples for _, data in data_specs(spec)})
    seconds = wall_seconds(costed(spec, RunPaths(run_name(spec)), known), place, known)
    assert seconds is not None, "every training of the ladder was tried"
    return seconds


def budget_of(text: str) -> float:
    """`90s`, `5m`, `1.5h`, `1d` or `1h30m` in seconds. Raises SpecError."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text.lower())
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if "".join(map("".join, parts)) != text.lower() or not 0 < seconds <= 365 * UNITS["d"]:
        raise not_allowed("--budget", text, "a time such as 90s, 5m, 2h, 1d, at most 365d")
    return seconds
