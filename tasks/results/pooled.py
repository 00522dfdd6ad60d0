"""The arms of several runs as one: runs of other seeds or methods add up, runs of another protocol do not."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, is_dataclass, replace
from operator import attrgetter
from typing import Any

from autosparse.models.arms.plan import planned
from autosparse.models.errors import DataError, not_allowed, unknown_name
from autosparse.models.methods.names import is_learned, looks_ahead
from autosparse.models.specs.differences import differences
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import override, to_plain
from autosparse.models.specs.grain import WEIGHTS, Cost, cost_of
from autosparse.models.specs.run_specs import TICKET
from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Store
from autosparse.tasks.results.arm_reports import Report, arm_of
from autosparse.tasks.results.measured import value_of
from autosparse.tasks.results.record import arms_among, fanout_reports
from autosparse.tasks.results.run_view import record_of, spec_of_run

# fields of a spec that a table has rows, columns or n for: runs that differ in them stand in one table as they are
AXES = ("fanout.methods", "fanout.densities", "fanout.shares", "fanout.seeds", "fanout.controls", "fanout.targets")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Arms of one protocol, each once; `values` are those of the fields in which the groups of a table differ."""

    values: tuple[Any, ...]
    fingerprints: dict[str, str]  # of the runs, by name
    specs: tuple[ExperimentSpec, ...]
    arms: list[Report]
    notes: tuple[str, ...]

    def cost(self, method: str) -> Cost:
        """What the density of an arm is a share of; tickets of an IRP over channels are cut to multiply-adds."""
        channels = method == TICKET and self.specs[0].irp.grain == "channels"
        return "multiply_adds" if channels else cost_of(method) if method != TICKET else WEIGHTS

    def place(self, method: str) -> int:
        """Where a method stands among those of the specs."""
        order = list(dict.fromkeys(name for spec in self.specs for name in spec.fanout.all_methods))
        return order.index(method) if method in order else len(order)


def pooled(store: Store, names: Sequence[str], over: Sequence[str] = ()) -> list[Group]:
    """The runs called `names`, together where they have the same values of the fields `over`.

    Raises DataError where there is no such run, and where two differ in another field that arms depend on; SpecError for a field of
    `over` that a spec does not have.
    """
    specs = {name: spec_of_run(store, name) for name in dict.fromkeys(names)}
    fields = [field for field in over if not is_axis(field)]
    _check_protocol(specs, fields)
    groups: dict[str, list[str]] = {}
    values: dict[str, tuple[Any, ...]] = {}
    for name, spec in specs.items():
        found = tuple(value_at(spec, field) for field in fields)
        groups.setdefault(repr(found), []).append(name)
        values[repr(found)] = found
    return [_group(store, values[key], {name: specs[name] for name in members}) for key, members in groups.items()]


def is_axis(field: str) -> bool:
    """Whether a table has rows, columns or n for this field already."""
    return field in AXES


def value_at(spec: ExperimentSpec, field: str) -> Any:
    """The value of a dotted path of a spec, as plain data. Raises SpecError."""
    node: Any = to_plain(spec)
    for key in field.split("."):
        known = dict(enumerate(node)) if isinstance(node, list) else node if isinstance(node, dict) else {}
        known = {str(name): value for name, value in known.items()}
        if key not in known:
            raise unknown_name("--over", field, [field.rpartition(key)[0] + name for name in known])
        node = known[key]
    return node


def _group(store: Store, values: tuple[Any, ...], specs: dict[str, ExperimentSpec]) -> Group:
    found: dict[tuple[Any, ...], tuple[str, Report]] = {}
    unlike: list[str] = []
    notes = []
    for name, spec in specs.items():
        arms = arms_among(fanout_reports(store, RunPaths(name), spec))
        if missing := len(set(planned(spec)) - set(map(arm_of, arms))):
            notes.append(f"{name} is not finished: {missing} of its {len(planned(spec))} arms are not there.")
        for arm in arms:
            key = (arm_of(arm), arm["dataset"])
            there, kept = found.setdefault(key, (name, arm))
            if value_of(kept) != value_of(arm):
                unlike.append(f"{arm_of(arm).text} ({value_of(kept)} in {there}, {value_of(arm)} in {name})")
    if unlike:
        notes.append(f"In several runs with different values, of which the first counts: {', '.join(unlike)}.")
    arms = [arm for _, arm in found.values()]
    fingerprints = {name: record_of(store, RunPaths(name))["fingerprint"] for name in specs}
    return Group(values=values, fingerprints=fingerprints, specs=tuple(specs.values()), arms=arms, notes=tuple(notes))


def _check_protocol(specs: dict[str, ExperimentSpec], over: Sequence[str]) -> None:
    (first, mine), *others = specs.items()
    shared = {field: value_at(mine, field) for field in over}
    for name, spec in others:
        for field, one, two in _protocol_differences(mine, override(spec, shared) if shared else spec):
            both = f"{_shown(one)} in {first}, {_shown(two)} in {name}"
            raise DataError(f"{field}: {both}; allowed: one protocol in a table, or --over {field}")


def _protocol_differences(first: ExperimentSpec, second: ExperimentSpec) -> Iterator[tuple[str, Any, Any]]:
    """Fields that decide what an arm is worth and differ; seeds may, data is compared where both have a target of that name."""
    for index, target in enumerate(first.fanout.targets):
        for other in second.fanout.targets:
            one, two = first.data_of(target), second.data_of(other)
            if target.label == other.label and one.title == two.title:
                yield from differences(one, two, f"fanout.targets.{index}.data" if target.data else "data")
    yield from differences(first.fanout.train, second.fanout.train, "fanout.train")
    for field in ("fanout.min_per_layer", "fanout.repair", "fanout.compact"):
        one, two = attrgetter(field)(first), attrgetter(field)(second)
        if one != two:
            yield field, one, two
    methods = [set(spec.fanout.all_methods) for spec in (first, second)]
    if all(any(map(looks_ahead, names)) for names in methods):
        yield from differences(first.scoring, second.scoring, "scoring")
    yield from differences(first.scoring.strict, second.scoring.strict, "scoring")
    learned = all(any(map(is_learned, names)) for names in methods)
    if learned or (first.fanout.ticket and second.fanout.ticket):
        yield from differences(replace(first.irp, seeds=()), replace(second.irp, seeds=()), "irp")
    if learned:
        one, two = (replace(spec.scorer, seed=0, holdout_seeds=()) for spec in (first, second))
        yield from differences(one, two, "scorer")


def _shown(value: Any) -> str:
    return str(to_plain(value)) if is_dataclass(value) else repr(list(value) if isinstance(value, tuple) else value)


def check_runs(names: Sequence[str]) -> None:
    """Raise SpecError where no run is named."""
    if not names:
        raise not_allowed("RUN", "none", "one or more names of runs, as `autosparse status` lists them")
