"""All kinds of scorers, and the card that together with a state dict rebuilds one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autosparse.models.criteria.paths import Paths
from autosparse.models.errors import DataError, unknown_name
from autosparse.models.features import FEATURE_NAMES, FEATURES_VERSION
from autosparse.models.scorers.allocation_head import Allocation
from autosparse.models.scorers.binned_table import BinnedTable
from autosparse.models.scorers.mlp import MlpScorer
from autosparse.models.scorers.resnet_lift import ResNetScorer


@dataclass(frozen=True)
class ScorerKind:
    """A kind of scorer: its module, and how one is begun from the widths of hidden layers (where it has such) and a seed.

    A module maps features (n, F) to scores (n,), higher = keep, and has `kind`, `fields` (its constructor's arguments) and
    `chunk_rows` (rows it scores at once in bounded memory). It may have `absorb(batches, all_sum)`: see autosparse.models.scorers.fit; and
    `allocation`, one of HEADS: then its scores rank weights inside a layer only.
    """

    module: type[nn.Module]
    begin: Callable[[tuple[int, ...], int], nn.Module]


SCORERS: dict[str, ScorerKind] = {
    MlpScorer.kind: ScorerKind(MlpScorer, lambda hidden, seed: MlpScorer(hidden=hidden, seed=seed)),
    ResNetScorer.kind: ScorerKind(ResNetScorer, lambda hidden, seed: ResNetScorer(seed=seed)),
    BinnedTable.kind: ScorerKind(BinnedTable, lambda hidden, seed: BinnedTable()),
}


HEADS: dict[str, type[Allocation] | type[Paths]] = {"learned": Allocation, "paths": Paths}


def build_scorer(kind: str, *, hidden: tuple[int, ...], seed: int) -> nn.Module:
    """A scorer before its fit. `hidden` counts for the mlp only. Raises SpecError on an unknown kind."""
    if kind not in SCORERS:
        raise unknown_name("scorer.kind", kind, SCORERS)
    return SCORERS[kind].begin(hidden, seed)


def scorer_config(scorer: nn.Module) -> dict[str, Any]:
    """The card: JSON-like data that rebuilds the module and names the features it expects."""
    allocation = getattr(scorer, "allocation", None)
    heads = {"allocation": allocation.to_plain()} if allocation else {}
    return {"kind": scorer.kind, "fields": scorer.fields, "features_version": FEATURES_VERSION, "features": list(FEATURE_NAMES), **heads}


def scorer_from_config(config: Mapping[str, Any]) -> nn.Module:
    """The module of a card, in eval mode, to be filled by `load_state_dict`.

    Raises DataError where the card asks for features of another version, or for a kind or field that is not known.
    """
    version, kind, given = config.get("features_version"), config.get("kind"), config.get("fields", {})
    if version != FEATURES_VERSION:
        raise DataError(f"scorer.features_version: {version!r} is not allowed; allowed: {FEATURES_VERSION} (fit the scorer again)")
    if not isinstance(kind, str) or kind not in SCORERS:
        raise DataError(str(unknown_name("scorer.kind", str(kind), SCORERS)))
    if not isinstance(given, Mapping):
        raise DataError(f"scorer.fields: {given!r} is not allowed; allowed: an object with the fields of {kind!r}")
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    try:
        scorer = SCORERS[kind].module(**fields).eval()
        scorer.allocation = _head(config["allocation"]) if config.get("allocation") else None  # type: ignore[assignment]
        return scorer
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise DataError(f"scorer.fields: {fields} are not allowed; allowed: the fields of {kind!r} ({error})") from None


def _head(described: Any) -> Allocation | Paths:
    kind = described.get("kind", "learned") if isinstance(described, Mapping) else None
    if kind not in HEADS:
        raise DataError(f"scorer.allocation: {described!r} is not allowed; allowed: an object whose kind is one of {', '.join(HEADS)}")
    return HEADS[kind].from_plain(described)


def restored_scorer(config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> nn.Module:
    """The module of a card, filled with its state dict, in eval mode. Raises DataError, which names `where`, if they do not fit."""
    with torch.device("meta"):  # no memory for a size that only the card claims
        expected = {name: tensor.shape for name, tensor in scorer_from_config(config).state_dict().items()}
    if wrong := sorted(name for name in {**expected, **tensors} if name not in tensors or tensors[name].shape != expected.get(name)):
        raise DataError(f"scorer: tensors of {where} do not fit its card ({wrong[0]})")
    scorer = scorer_from_config(config)
    try:
        scorer.load_state_dict(tensors)
    except RuntimeError as error:
        raise DataError(f"scorer: tensors of {where} do not fit its card ({str(error).splitlines()[0]})") from error
    return scorer.eval()
