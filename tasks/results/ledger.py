"""What a run cost, in seconds and in multiply-adds, and how often its scorer must be used until it has paid for itself."""

import math
import statistics
from dataclasses import dataclass

from autosparse.models.arms.arm import arm_name
from autosparse.models.arms.plan import ticket_targets
from autosparse.models.networks.build import build_network
from autosparse.models.networks.flops import BACKWARD, forward_macs, training_macs
from autosparse.models.schedules import density_before
from autosparse.models.specs.run_specs import SCORER, TICKET, DataSpec, NetworkSpec
from autosparse.tasks.results.arm_reports import Report
from autosparse.tasks.results.record import RunRecord
from autosparse.tasks.worker.problem import fit_of


@dataclass(frozen=True, kw_only=True)
class MethodCost:
    """Mean seconds of one scoring and of one retraining; None = nothing of it was done, `*_n` = how many."""

    method: str
    control: str | None = None
    scoring: float | None
    scoring_n: int
    retraining: float | None
    retraining_n: int

    @property
    def name(self) -> str:
        """As tables spell it: `snip+shuffle`."""
        return arm_name(self.method, self.control)

    @property
    def share(self) -> float | None:
        """Scoring as a share of one retraining."""
        return self.scoring / self.retraining if self.scoring is not None and self.retraining else None


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Wall seconds of the steps, their overhead included. None = that part is not there."""

    irp: float | None  # all rounds of all sources
    sources: int  # with at least one round
    rounds: int
    features: float | None
    fit: float | None
    methods: list[MethodCost]
    whole: bool  # whether all rounds are there

    @property
    def irp_per_network(self) -> float | None:
        """What one more IRP would cost."""
        return self.irp / self.sources if self.irp is not None and self.sources else None

    @property
    def scoring(self) -> float | None:
        """One scoring by the scorer."""
        return self._scoring(SCORER)

    @property
    def break_even(self) -> tuple[float | None, str]:
        """That of the scorer in the strict track."""
        return self.reuses(SCORER)

    def reuses(self, method: str) -> tuple[float | None, str]:
        """(IRP + features + fit) / (IRP per network - scoring), or None and why it is not defined.

        `method` is a learned one; the seconds of its scoring hold its probe, where it looks ahead.
        """
        scoring = self._scoring(method)
        parts = {"IRP": self.irp, "features": self.features, "scorer fit": self.fit, f"scoring by the {method}": scoring}
        missing = [name for name, seconds in parts.items() if seconds is None]
        if missing:
            return None, f"no {' and no '.join(missing)}"
        if not self.whole:
            return None, "the IRP is not finished"
        saved = (self.irp_per_network or 0.0) - (scoring or 0.0)
        if saved <= 0:
            return None, "scoring costs no less than an IRP"
        return ((self.irp or 0.0) + (self.features or 0.0) + (self.fit or 0.0)) / saved, ""

    def _scoring(self, method: str) -> float | None:
        return next((cost.scoring for cost in self.methods if (cost.method, cost.control) == (method, None)), None)

    @property
    def networks(self) -> int | None:
        """The break-even in whole networks."""
        reuses, _ = self.break_even
        return None if reuses is None else math.ceil(round(reuses, 9))


@dataclass(frozen=True, kw_only=True)
class MacsCost:
    """Multiply-adds of a target under one mask: per image forward, and of a whole retraining, if masked weights cost nothing."""

    forward: float
    training: float
    share: float  # of the dense network


def ledger(record: RunRecord) -> Ledger:
    """Sums over what has been done so far."""
    sources = {(report["source"], report["seed"]) for report in record.rounds}
    irp = record.spec.irp
    methods = {(report["method"], report["control"]) for report in (*record.arms, *record.scores)}
    return Ledger(
        irp=sum(report["seconds"] for report in record.rounds) if record.rounds else None,
        sources=len(sources),
        rounds=len(record.rounds),
        features=record.features["seconds"] if record.features else None,
        fit=record.scorer["seconds"] if record.scorer else None,
        methods=[_cost(record, *name) for name in sorted(methods, key=lambda name: record.place(*name))],
        whole=len(record.rounds) == len(irp.networks) * len(irp.seeds) * irp.rounds,
    )


def ticket_seconds(record: RunRecord) -> dict[tuple[str, int, float], float]:
    """(target, seed, density) of a ticket's arm -> wall seconds of the rounds that its IRP needed until it was cut."""
    irp, found = record.spec.irp, {}
    sources = {target.label: network.label for network in irp.networks for target in ticket_targets(record.spec, network)}
    for arm in record.arms:
        if arm["method"] == TICKET:
            needed = [
                report["seconds"]
                for report in record.rounds
                if (report["source"], report["seed"]) == (sources.get(arm["target"]), arm["seed"])
                and density_before(report["round"], irp.rounds, irp.final_density) > arm["density"]
            ]
            if needed:
                found[arm["target"], arm["seed"], arm["density"]] = sum(needed)
    return found


def _cost(record: RunRecord, method: str, control: str | None) -> MethodCost:
    def mine(reports: list[Report]) -> list[Report]:
        return [report for report in reports if (report["method"], report["control"]) == (method, control)]

    scoring = [report["seconds"] for report in mine(record.scores)]
    # a collapsed arm is not trained, so its seconds say nothing
    training = [report["seconds"] for report in mine(record.arms) if report.get("status") == "ok"]
    return MethodCost(
        method=method,
        control=control,
        scoring=statistics.fmean(scoring) if scoring else None,
        scoring_n=len(scoring),
        retraining=statistics.fmean(training) if training else None,
        retraining_n=len(training),
    )


def target_macs(network: NetworkSpec, data: DataSpec, report: Report) -> dict[str, int]:
    """Multiply-adds per example and layer of a target on the data that a report of `inspect_data` describes."""
    fit = fit_of(data, report)
    return forward_macs(build_network(network, seed=0, **fit), fit["image_shape"])


def macs_cost(macs: dict[str, int], layers: dict[str, float] | None, record: RunRecord, data: Report) -> MacsCost:
    """The cost of one mask (`layers`: layer -> density; None = dense): forward, and a retraining of all epochs of the spec."""
    train = record.spec.fanout.train
    images = train.epochs * (data["train"] // train.batch_size) * train.batch_size  # the last short batch is dropped
    step = training_macs(macs, layers)
    dense = training_macs(macs)
    return MacsCost(forward=step / (1 + BACKWARD), training=step * images, share=step / dense)


def data_of(record: RunRecord, data: DataSpec | None, index: int) -> Report | None:
    """What `inspect_data` found in the data of target number `index`; `data` None means that of the run."""
    name = "data" if data is None else f"fanout-targets-{index}-data"
    return record.data.get(name)
