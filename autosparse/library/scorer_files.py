"""A fitted scorer and its two files, loadable without MLflow."""

from typing import TYPE_CHECKING, Any

from torch import nn

from autosparse.models.errors import DataError
from autosparse.models.scorers.drift import Seen
from autosparse.models.scorers.registry import restored_scorer, scorer_config
from autosparse.storage.scorer_files import parse_scorer_files, read_scorer_files, write_scorer_files

if TYPE_CHECKING:  # pyarrow comes with it, which the library alone does not need
    from autosparse.storage.store import Store


def save_scorer(store: "Store", folder: str, scorer: nn.Module, card: dict[str, Any]) -> None:
    """Write both files; the card gets the scorer's own description beside what it is told."""
    tensors = {name: tensor.cpu() for name, tensor in scorer.state_dict().items()}
    write_scorer_files(store, folder, tensors, {**card, "scorer": scorer_config(scorer)})


def load_scorer(store: "Store", folder: str) -> tuple[nn.Module, dict[str, Any]]:
    """The scorer in eval mode and its card. Raises DataError when a file is missing, corrupt or of another feature version."""
    card, tensors = read_scorer_files(store, folder)
    return restored_scorer(card["scorer"], tensors, store.uri(folder)), card


def read_scorer(card: bytes, weights: bytes, where: str) -> tuple[nn.Module, dict[str, Any]]:
    """The scorer of a card and its tensors; `where` names them in errors."""
    described, tensors = parse_scorer_files(card, weights, where)
    return restored_scorer(described["scorer"], tensors, where), described


def features_seen(card: dict[str, Any]) -> dict[str, Seen] | None:
    """For the drift guard: source network -> its features; None of a card from before there was one. Raises DataError on a broken one."""
    described = card.get("features_seen")
    if described and not isinstance(described, dict):
        raise DataError("scorer.features_seen: no object in its card; allowed: source network -> its features")
    return {source: Seen.from_plain(seen) for source, seen in described.items()} if described else None
