"""The spec of a whole run, and what its parts must agree on."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import reduce
from operator import getitem
from typing import Any

from autosparse.models.errors import SpecError, not_allowed
from autosparse.models.methods.names import family, is_learned, looks_ahead
from autosparse.models.specs.fanout import FanoutSpec, TargetSpec, ValleySpec
from autosparse.models.specs.fields import Spec, check_fields, from_plain
from autosparse.models.specs.grain import RATES
from autosparse.models.specs.run_specs import SCORER_GROWTH, DataSpec, IrpSpec, ScorerSpec, ScoringSpec, TrainSpec
from autosparse.models.specs.scorer_heads import GlobalHead


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentSpec(Spec):
    """A whole pipeline run: IRP, feature data set, scorer, fan-out, and what is measured between its arms."""

    data: DataSpec
    irp: IrpSpec
    scoring: ScoringSpec
    scorer: ScorerSpec
    fanout: FanoutSpec
    valley: ValleySpec = ValleySpec()

    def __post_init__(self) -> None:
        check_fields(self)
        for name, items in (
            ("irp.networks", [network.label for network in self.irp.networks]),
            ("irp.seeds", self.irp.seeds),
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
        self._check_seeds()
        self._check_lookahead()

    @classmethod
    def settle(cls, data: dict[str, Any], named: Collection[str]) -> None:
        """The parts whose fields hang together, unless they were replaced whole."""
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


def stored_spec(plain: Any) -> ExperimentSpec:
    """The spec in a run's spec.json. Earlier versions wrote settings of heads that were not chosen; they are taken as `scorer.unused`.

    Raises SpecError as `from_plain` does.
    """
    scorer = plain.get("scorer") if isinstance(plain, dict) else None
    if isinstance(scorer, dict) and "unused" not in scorer:
        plain = {**plain, "scorer": dict(scorer)}
        ScorerSpec.settle(plain["scorer"], ())
    return from_plain(ExperimentSpec, plain)
