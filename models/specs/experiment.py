"""The spec of a whole run, and what its parts must agree on."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import cache, reduce
from operator import getitem
from typing import Any

from autosparse.models.errors import SpecError, not_allowed
from autosparse.models.methods.names import family, is_learned, looks_ahead
from autosparse.models.specs.fanout import FanoutSpec, TargetSpec, ValleySpec
from autosparse.models.specs.fields import Spec, check_fields, from_plain, to_plain
from autosparse.models.specs.grain import RATES
from autosparse.models.specs.run_specs import SCORER_GROWTH, DataSpec, IrpSpec, ScorerSpec, ScoringSpec, TrainSpec
from autosparse.models.specs.scorer_heads import GlobalHead

# What stands in a spec without sources; nothing reads more of it than that there are none. No spec with sources is equal to either.
# Made when they are needed: a check of theirs asks a registry, which imports torch.


@cache
def no_irp() -> IrpSpec:
    """The `irp` of a spec without sources."""
    train = TrainSpec(epochs=1, batch_size=1, lr=0.1, momentum=0.0, nesterov=False, weight_decay=0.0, schedule="constant")
    return IrpSpec(networks=(), seeds=(), rounds=1, final_density=1.0, criterion="magnitude", train=train)


@cache
def no_scorer() -> ScorerSpec:
    """The `scorer` of a spec without sources."""
    return ScorerSpec(kind="mlp", epochs=1, batch_size=1, lr=0.1, holdout_layers=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentSpec(Spec):
    """A whole pipeline run: IRP, feature data set, scorer, fan-out, and what is measured between its arms.

    Without `irp.seeds` there are no sources: no IRP, no data set, no scorer, but a comparison of what needs none of them. Whatever else
    is said of `irp` and `scorer` then goes, so that the same run has one fingerprint.
    """

    data: DataSpec
    irp: IrpSpec = field(default_factory=no_irp)
    scoring: ScoringSpec
    scorer: ScorerSpec = field(default_factory=no_scorer)
    fanout: FanoutSpec
    valley: ValleySpec = ValleySpec()

    def __post_init__(self) -> None:
        check_fields(self)
        self._check_parts()
        sources = (("irp.networks", [network.label for network in self.irp.networks]), ("irp.seeds", self.irp.seeds))
        for name, items in (
            *(sources if self.irp.seeds else ()),
            ("fanout.targets", [target.label for target in self.fanout.targets]),
            ("fanout.methods", self.fanout.methods),
            ("fanout.densities", self.fanout.densities),
            ("fanout.seeds", self.fanout.seeds),
        ):
            if not items or len(set(items)) != len(items):
                raise not_allowed(name, list(items), "at least one entry, no two the same")
        optional = {f"fanout.targets.{index}.methods": target.methods for index, target in enumerate(self.fanout.targets)}
        for name, items in {"fanout.controls": self.fanout.controls, "fanout.shares": self.fanout.shares, **optional}.items():
            if len(set(items)) != len(items):
                raise not_allowed(name, list(items), "no two the same")
        if self.irp.seeds:
            self._check_seeds()
        else:
            self._check_sourceless()
        self._check_lookahead()

    @classmethod
    def settle(cls, data: dict[str, Any], named: Collection[str]) -> None:
        """The parts whose fields hang together, unless they were replaced whole. Raises SpecError for fields that no run would read."""
        if isinstance(data["irp"], dict) and not data["irp"].get("seeds", True):
            for part, none in (("irp", no_irp()), ("scorer", no_scorer())):
                _refuse_unread(part, data[part], to_plain(none), named)
        for keys, kind in ((("scorer",), ScorerSpec), (("irp", "train"), TrainSpec), (("fanout", "train"), TrainSpec)):
            part = ".".join(keys)
            if not {part, keys[0]} & set(named):
                inside = [path.removeprefix(f"{part}.") for path in named if path.startswith(f"{part}.")]
                kind.settle(reduce(getitem, keys, data), inside)

    def data_of(self, target: TargetSpec) -> DataSpec:
        """The data of a target; one that names no path finds the same kind of files where the run does."""
        if target.data is None:
            return self.data
        if target.data.path is None and target.data.name == self.data.name:
            return replace(target.data, path=self.data.path)
        return target.data

    def _check_parts(self) -> None:
        """Whether irp and scorer are both there or both not; without sources each is what it is where it is left out."""
        if self.irp.seeds and self.scorer == no_scorer():
            raise SpecError("scorer: missing; allowed: a scorer where irp.seeds has some")
        if self.irp == no_irp() and self.scorer != no_scorer():
            raise SpecError("irp: missing beside a scorer; allowed: both, or neither")
        if not self.irp.seeds:
            object.__setattr__(self, "irp", no_irp())
            object.__setattr__(self, "scorer", no_scorer())

    def _check_sourceless(self) -> None:
        wrong = [not_allowed("fanout.ticket", True, "false without irp.seeds: tickets come from an IRP")] if self.fanout.ticket else []
        named = {"fanout.methods": self.fanout.methods}
        named |= {f"fanout.targets.{index}.methods": target.methods for index, target in enumerate(self.fanout.targets)}
        for name, methods in named.items():
            if asking := list(filter(is_learned, methods)):
                wrong.append(not_allowed(name, asking, "methods that need no scorer: without irp.seeds none is fitted"))
        if wrong:
            raise SpecError("\n".join(map(str, wrong)))

    def _check_lookahead(self) -> None:
        ahead = sorted(method for method in self.fanout.all_methods if looks_ahead(method))
        if ahead and not self.scoring.lookahead_steps:
            raise not_allowed("scoring.lookahead_steps", 0, f">= 1 for {', '.join(ahead)}")
        if SCORER_GROWTH in map(family, ahead) and isinstance(self.scorer.head, GlobalHead):
            raise not_allowed("scorer.allocation", self.scorer.allocation, f"'learned' or 'paths' for {SCORER_GROWTH}")
        rates = [method for method in self.fanout.all_methods if f"widths={RATES}" in method]
        if rates and (self.scorer.label != "survival" or not isinstance(self.scorer.head, GlobalHead)):
            raise not_allowed("fanout.methods", rates[0], "a scorer of label 'survival' and allocation 'global' for these widths")
        spoiled = sorted({"random_labels", "random_pixels"} & set(self.fanout.controls))
        if ahead and spoiled:
            raise not_allowed("fanout.controls", spoiled, f"none that spoils scoring batches beside {', '.join(ahead)}")

    def _check_seeds(self) -> None:
        strangers = set(self.scorer.holdout_seeds) - set(self.irp.seeds)
        if strangers or set(self.scorer.holdout_seeds) == set(self.irp.seeds):
            raise not_allowed(
                "scorer.holdout_seeds", list(self.scorer.holdout_seeds), f"some, not all, of irp.seeds {list(self.irp.seeds)}"
            )
        if not self.scorer.holdout_seeds and not self.scorer.holdout_layers:
            raise SpecError("scorer.holdout_layers: 0.0 is not allowed; allowed: > 0 where scorer.holdout_seeds is empty")
        shared = set(self.irp.seeds) & set(self.fanout.seeds)
        if shared and any(map(is_learned, self.fanout.all_methods)):
            raise not_allowed("fanout.seeds", list(self.fanout.seeds), f"seeds the scorer has not seen; irp.seeds has {sorted(shared)} too")


def _refuse_unread(part: str, given: Any, none: dict[str, Any], named: Collection[str]) -> None:
    """Raise SpecError for a named field of a part that there is not, unless it is as in `none`."""
    for path in named:
        top, *inside = path.split(".")
        if top == part and inside and inside[0] != "seeds" and isinstance(given, dict) and given.get(inside[0]) != none.get(inside[0]):
            raise SpecError(f"{path}: nothing reads it without irp.seeds; allowed: with some")


def plain_spec(spec: ExperimentSpec) -> dict[str, Any]:
    """The spec as JSON-like data, as runs store and show it: irp and scorer are left out where there are none."""
    plain = to_plain(spec)
    return plain if spec.irp.seeds else {name: part for name, part in plain.items() if name not in ("irp", "scorer")}


def stored_spec(plain: Any) -> ExperimentSpec:
    """The spec in a run's spec.json. Earlier versions wrote settings of heads that were not chosen; they are taken as `scorer.unused`.

    Raises SpecError as `from_plain` does.
    """
    scorer = plain.get("scorer") if isinstance(plain, dict) else None
    if isinstance(scorer, dict) and "unused" not in scorer:
        plain = {**plain, "scorer": dict(scorer)}
        ScorerSpec.settle(plain["scorer"], ())
    return from_plain(ExperimentSpec, plain)
