"""The plan of a run: its steps with what they cost, done and to do, and the sums; as plain data, in lines and as markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import fingerprint
from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Store
from autosparse.tasks.checks.disk_room import sizes_of, stored_bytes
from autosparse.tasks.planning import steps as kinds
from autosparse.tasks.planning.costs import Cost, Rates, cost_of
from autosparse.tasks.planning.ledger import EARLIER, fill, known_rates
from autosparse.tasks.planning.probe import rates_of
from autosparse.tasks.planning.schedule import Place, wall_seconds
from autosparse.tasks.planning.steps import KINDS, PlannedStep, steps_of
from autosparse.tasks.planning.words import counted, sized, spoken
from autosparse.tasks.results.markdown import markdown

THERE, MISSING = "report there", "no report"
COPIES = 3  # of a network in a checkpoint: weights, momentum, and the one before it
HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What is known of a run before it goes on. `known_from` says where seconds come from; without any they are None."""

    name: str
    spec: ExperimentSpec
    steps: Sequence[tuple[PlannedStep, Cost]]
    done: frozenset[str]
    place: Place
    rates: Rates
    known_from: tuple[str, ...]
    price: float | None = None  # of an hour of the place

    @property
    def to_do(self) -> list[tuple[PlannedStep, Cost]]:
        """The steps without a report."""
        return [(step, cost) for step, cost in self.steps if step.key not in self.done]

    @property
    def trainings(self) -> int:
        """Rounds and arms to do."""
        return sum(step.kind in (kinds.ROUND, kinds.ARM) for step, _ in self.to_do)

    @property
    def examples(self) -> int | None:
        """Images, or examples, that the trainings to do will see; None where their number is not known."""
        counts = [cost.examples for _, cost in self.to_do]
        return None if None in counts else sum(filter(None, counts))

    @property
    def seconds(self) -> float | None:
        """On the clock, until all is done."""
        return wall_seconds(self.to_do, self.place, self.rates)

    def hours_of(self, resource: str) -> float | None:
        """CPU or GPU hours that jobs hold (`cpus`, `gpus`); None where the time is not known."""
        if any(cost.seconds is None for _, cost in self.to_do):
            return None
        return (
            sum((cost.seconds or 0.0) * step.job.workers * getattr(step.job, f"{resource}_per_worker") for step, cost in self.to_do) / HOUR
        )

    @property
    def whole_price(self) -> float | None:
        """Hours on the clock times the price of one."""
        return None if self.price is None or self.seconds is None else self.price * self.seconds / HOUR

    @property
    def bytes(self) -> dict[str, int]:
        """In storage: by kind of step when all is done, what of it is still to come, and checkpoints that are there for a while."""
        kept = dict.fromkeys((kinds.ROUND, kinds.FEATURES, kinds.SCORING, kinds.ARM), 0)
        for step, _ in self.steps:
            if step.kind in kept:
                kept[step.kind] += stored_bytes(step, self.spec)
        state = max(sizes_of(target.network, self.spec.data_of(target))[1] for target in self.spec.fanout.targets)
        left = sum(stored_bytes(step, self.spec) for step, _ in self.to_do)
        return {**kept, "to_do": left, "checkpoints": COPIES * state * self.place.slots(self.spec.fanout.job)}

    @property
    def guesses(self) -> list[str]:
        """What of the estimate is a guess."""
        return list(dict.fromkeys(cost.guess for _, cost in self.to_do if cost.guess))

    def to_plain(self) -> dict[str, Any]:
        """Everything, for machines; the keys are in docs/running.md."""
        return {
            "name": self.name,
            "fingerprint": fingerprint(self.spec),
            "place": {"name": self.place.name, "cpus": self.place.cpus, "gpus": self.place.gpus},
            "steps": [self._step(step, cost) for step, cost in self.steps],
            "done": len(self.steps) - len(self.to_do),
            "to_do": len(self.to_do),
            "trainings": self.trainings,
            "examples": self.examples,
            "seconds": self.seconds,
            "cpu_hours": self.hours_of("cpus"),
            "gpu_hours": self.hours_of("gpus"),
            "bytes": self.bytes,
            "price": None if self.price is None else {"per_hour": self.price, "whole": self.whole_price},
            "known_from": list(self.known_from),
            "guesses": self.guesses,
        }

    def _step(self, step: PlannedStep, cost: Cost) -> dict[str, Any]:
        done = step.key in self.done
        figures = {"examples": cost.examples, "seconds": cost.seconds}
        return {"step": step.key, "kind": step.kind, "title": step.title, "done": done, "reason": THERE if done else MISSING, **figures}

    def line(self, *, timed: bool = True) -> str:
        """The plan in one line; not `timed` where the place is not the one that it will run at."""
        if not self.to_do:
            return f"all {len(self.steps)} steps are done"
        trainings = sum(step.kind in (kinds.ROUND, kinds.ARM) for step, _ in self.steps)
        parts = [f"{self.trainings} of {trainings} trainings to do"]
        parts += [f"{counted(self.examples)} examples"] if self.examples is not None else []
        if timed and self.seconds is not None:
            return ", ".join([*parts, f"about {spoken(self.seconds)} on {self.place.words}"])
        return ", ".join(parts) + "; `autosparse plan` measures how long it takes"

    def rows(self) -> list[tuple[str, ...]]:
        """kind, done, to do, examples, seconds one after another, why: of each kind of step."""
        found = []
        for kind in KINDS:
            mine = [(step, cost) for step, cost in self.steps if step.kind == kind]
            left = [(step, cost) for step, cost in mine if step.key not in self.done]
            if mine:
                seconds = [cost.seconds for _, cost in left]
                examples = [cost.examples for _, cost in left]
                found.append(
                    (
                        kind,
                        str(len(mine) - len(left)),
                        str(len(left)),
                        "?" if None in examples else counted(sum(filter(None, examples))) if any(examples) else "",
                        "" if not left else "?" if None in seconds else spoken(sum(filter(None, seconds))),
                        MISSING if left else THERE,
                    )
                )
        return found

    def markdown(self) -> str:
        """For the UI of Prefect."""
        head = ("step", "done (Cached)", "to do", "examples", "one after another", "why")
        return "\n".join([f"**{self.line()}**", "", markdown(head, self.rows()), *(f"- {line}" for line in self.sums())])

    def sums(self) -> list[str]:
        """What it comes to, in lines."""
        kept = self.bytes
        left, passing = kept.pop("to_do"), kept.pop("checkpoints")
        parts = ", ".join(f"{kind} {sized(size)}" for kind, size in kept.items() if size)
        lines = [f"storage: {parts}; to come {sized(left)}, checkpoints on the way {sized(passing)}"]
        cpu, gpu, seconds = self.hours_of("cpus"), self.hours_of("gpus"), self.seconds
        if not self.to_do:
            return lines
        if seconds is None or cpu is None:
            lines.append("hours: not known before a training of this network was timed")
        else:
            lines.append(f"hours: {seconds / HOUR:.3g} on the clock of {self.place.name} ({self.place.words}), {cpu:.3g} of CPUs")
            lines[-1] += f", {gpu:.3g} of GPUs" if gpu else ""
        if self.whole_price is not None:
            lines.append(f"price: {self.whole_price:.2f} at {self.price:g} an hour of {self.place.name}")
        lines += [f"known from: {', '.join(self.known_from)}"] if self.known_from else []
        lines += [f"guessed: {'; '.join(self.guesses)}"] if self.guesses else []
        return lines


def rows_of(spec: ExperimentSpec) -> dict[str, int]:
    """Prunable weights by label of the source networks."""
    return {network.label: sizes_of(network, spec.data)[0] for network in spec.irp.networks}


def costed(spec: ExperimentSpec, run: RunPaths, rates: Rates) -> list[tuple[PlannedStep, Cost]]:
    """Every step of a run with its cost."""
    return [(step, cost_of(step, spec, rates)) for step in steps_of(spec, run)]


def stored_plan(
    store: Store, run: RunPaths, spec: ExperimentSpec, place: Place, *, price: float | None = None, quick: bool = False
) -> RunPlan:
    """The plan of a run by what is in storage: its own reports first, then those of the last runs beside it.

    A `quick` one leaves the others out where they are not on this machine's disk.
    """
    others = 0 if quick and store.local_path(run.spec) is None else EARLIER
    rates, known, done = known_rates(store, run, spec, rows_of(spec), earlier=others)
    return RunPlan(
        name=run.name,
        spec=spec,
        steps=costed(spec, run, rates),
        done=frozenset(done),
        place=place,
        rates=rates,
        known_from=tuple(known),
        price=price,
    )


def measured_by(found: RunPlan, measured: Mapping[str, Any], said: str) -> RunPlan:
    """The plan with what a probe of its trainings measured, where storage knew nothing; `said` is where that was."""
    fill(found.rates, rates_of(found.spec, measured))
    steps = costed(found.spec, RunPaths(found.name), found.rates)
    return replace(found, steps=steps, known_from=(*found.known_from, said))
