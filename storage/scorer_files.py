"""A fitted scorer as two files, safetensors and a JSON card: what is in them. `autosparse.models.scorers.registry` builds the module."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from autosparse.models.errors import DataError
from autosparse.storage import paths
from autosparse.storage.checkpoints import dump_tensors, load_tensors
from autosparse.storage.damage import made_again
from autosparse.storage.plain_json import load_json

if TYPE_CHECKING:  # pyarrow comes with it, which the library alone does not need
    from autosparse.storage.store import Store


def write_scorer_files(store: "Store", folder: str, tensors: Mapping[str, Tensor], card: dict[str, Any]) -> None:
    """Write the state dict, then the card, whose `scorer` says how to build the module."""
    store.write(paths.scorer_weights(folder), dump_tensors(tensors))
    store.write_json(paths.scorer_card(folder), card)


def read_scorer_files(store: "Store", folder: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Card and state dict, on the CPU. Raises DataError when a file is missing or corrupt."""
    return parse_scorer_files(store.read(paths.scorer_card(folder)), store.read(paths.scorer_weights(folder)), store.uri(folder))


def parse_scorer_files(card: bytes, weights: bytes, where: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The same of the content of both files; `where` names them in errors."""
    try:
        described = load_json(card)
        if not isinstance(described["scorer"], dict):
            raise TypeError("scorer is no object")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"scorer: {where} has no readable card ({error}){made_again(where)}") from error
    return described, load_tensors(weights, source=f"scorer: {where}")
