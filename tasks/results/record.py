"""Everything of a run that the report page shows, read from storage alone; what is not there yet is empty."""

from dataclasses import dataclass
from typing import Any

from autosparse.models.arms.arm import Arm, arm_name
from autosparse.models.arms.plan import planned, ticket_targets
from autosparse.models.masks.mask import Mask, layer_densities
from autosparse.models.specs.experiment import ExperimentSpec, stored_spec
from autosparse.models.specs.run_specs import DENSE, TICKET
from autosparse.storage import paths, reports
from autosparse.storage.mask_files import load_mask
from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Store
from autosparse.tasks.results.arm_reports import Report, arm_of, opened
from autosparse.tasks.results.rows import Row, summarize
from autosparse.tasks.results.run_view import view_run


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The reports of a run by kind, those of the fan-out opened; `arms` and `scores` stand in the order of the spec's methods."""

    name: str
    spec: ExperimentSpec
    view: dict[str, Any]  # what `autosparse show` prints
    rounds: list[Report]
    features: Report | None
    scorer: Report | None
    scores: list[Report]
    arms: list[Report]
    data: dict[str, Report]  # of the image data sets, by the label of their step
    rows: list[Row]  # mean, std and n of the arms that are there

    @property
    def made_by(self) -> list[dict[str, str]]:
        """Every distinct commit, version and machine that made a report of the run."""
        found = [*self.rounds, *(part for part in (self.features, self.scorer) if part), *self.scores, *self.arms, *self.data.values()]
        return [dict(items) for items in dict.fromkeys(tuple(sorted(report["made_by"].items())) for report in found if "made_by" in report)]

    def place(self, method: str, control: str | None = None) -> tuple[int, str, str]:
        """Where a method stands in tables: dense, ticket, those of the spec, each followed by its controls, then whatever else there is."""
        known = [DENSE, TICKET, *self.spec.fanout.all_methods]
        return known.index(method) if method in known else len(known), method, control or ""

    @property
    def planned_arms(self) -> list[Arm]:
        """The arms that the spec asks for; controls may stand beside them."""
        return [arm for arm in planned(self.spec) if not arm.control]

    @property
    def finished_arms(self) -> list[Report]:
        """Those of `planned_arms` that are there."""
        wanted = set(self.planned_arms)
        return [report for report in self.arms if arm_of(report) in wanted]


def load_record(store: Store, name: str) -> RunRecord:
    """The record of the run called `name`. Raises DataError where there is no such run."""
    view, run = view_run(store, name), RunPaths(name)
    spec = stored_spec(view["spec"])
    fanned = fanout_reports(store, run, spec)
    arms = arms_among(fanned)
    return RunRecord(
        name=name,
        spec=spec,
        view=view,
        rounds=reports.under(store, run.irp),
        features=reports.find(store, run.features),
        scorer=reports.find(store, run.scorer),
        scores=[report for report in fanned if "cuts" in report],
        arms=arms,
        data={run.within(step).split("/")[-1]: store.read_json(paths.report(step)) for step in reports.steps(store, run.images)},
        rows=summarize(arms),
    )


def fanout_reports(store: Store, run: RunPaths, spec: ExperimentSpec) -> list[Report]:
    """Those of scorings and arms, opened, in the order of the spec's methods."""
    fanned = [opened(report) for report in reports.under(store, run.fanout)]
    order = {method: index for index, method in enumerate(spec.fanout.all_methods)}
    fanned.sort(key=lambda report: (report["target"], order.get(report["method"], -1), report["seed"], -(report.get("density") or 1.0)))
    return fanned


def arms_among(fanned: list[Report]) -> list[Report]:
    """The arms among reports of a fan-out; the others are scorings."""
    return [report for report in fanned if "accuracy" in report or "metrics" in report]


def layer_density_rows(store: Store, record: RunRecord, target: str, density: float) -> dict[str, dict[str, float]]:
    """Method -> layer -> density after the cut, mean over seeds; no controls, the ticket where the target is a source network."""
    found: dict[str, list[dict[str, float]]] = {}
    order: dict[str, int] = {}
    for key in _tickets(store, record, target, density):
        found.setdefault(TICKET, []).append(layer_densities(load_mask(store.read(key), source=store.uri(key))))
    for report in record.scores:
        cut = report["cuts"].get(f"{density:g}")
        if report["target"] == target and cut and not report["control"]:
            found.setdefault(report["method"], []).append(cut["layer_densities"])
            order = order or _layer_order(store, cut["mask"])
    return {
        method: {layer: sum(one[layer] for one in seeds) / len(seeds) for layer in sorted(seeds[0], key=lambda name: order.get(name, 0))}
        for method, seeds in found.items()
    }


def masks_of_one_seed(store: Store, record: RunRecord, target: str, density: float) -> tuple[int, dict[str, Mask]]:
    """The seed with the most methods (the lowest of several), and name -> mask of that seed, as tables order and spell the names."""
    keys: dict[int, dict[tuple[str, str | None], str]] = {}
    for report in record.scores:
        cut = report["cuts"].get(f"{density:g}")
        if report["target"] == target and cut:
            keys.setdefault(report["seed"], {})[report["method"], report["control"]] = cut["mask"]
    if not keys:
        return 0, {}
    seed = min(keys, key=lambda seed: (-len(keys[seed]), seed))
    there = {name: key for name, key in sorted(keys[seed].items(), key=lambda item: record.place(*item[0])) if store.exists(key)}
    return seed, {arm_name(*name): load_mask(store.read(key), source=store.uri(key)) for name, key in there.items()}


def _layer_order(store: Store, mask: str) -> dict[str, int]:
    """Layers in the order of the network: reports are stored with sorted keys, masks are not."""
    if not store.exists(mask):
        return {}
    return {name: index for index, name in enumerate(load_mask(store.read(mask), source=store.uri(mask)))}


def _tickets(store: Store, record: RunRecord, target: str, density: float) -> list[str]:
    spec, run = record.spec, RunPaths(record.name)
    sources = [network.label for network in spec.irp.networks if target in {place.label for place in ticket_targets(spec, network)}]
    keys = [paths.ticket(run.source(label, seed), density) for label in sources for seed in spec.irp.seeds]
    return [key for key in keys if store.exists(key)]
