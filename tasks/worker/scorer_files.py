"""A fitted scorer as two files, safetensors and a JSON card, loadable without MLflow."""

import json
from typing import Any

from torch import nn

from models.errors import DataError
from models.scorers.registry import scorer_config, scorer_from_config
from storage import paths
from storage.checkpoints import dump_tensors, load_tensors
from storage.store import Store


def save_scorer(store: Store, folder: str, scorer: nn.Module, card: dict[str, Any]) -> None:
    """Write both files; the card gets the scorer's own description beside what it is told."""
    store.write(paths.scorer_weights(folder), dump_tensors({name: tensor.cpu() for name, tensor in scorer.state_dict().items()}))
    store.write_json(paths.scorer_card(folder), {**card, "scorer": scorer_config(scorer)})


def load_scorer(store: Store, folder: str) -> tuple[nn.Module, dict[str, Any]]:
    """The scorer in eval mode and its card. Raises DataError when a file is missing, corrupt or of another feature version."""
    return read_scorer(store.read(paths.scorer_card(folder)), store.read(paths.scorer_weights(folder)), store.uri(folder))


def read_scorer(card: bytes, weights: bytes, where: str) -> tuple[nn.Module, dict[str, Any]]:
    """The scorer of a card and its tensors; `where` names them in errors."""
    try:
        described = json.loads(card)
        config = described["scorer"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"scorer: {where} has no readable card ({error})") from error
    scorer = scorer_from_config(config)
    try:
        scorer.load_state_dict(load_tensors(weights))
    except RuntimeError as error:
        raise DataError(f"scorer: tensors of {where} do not fit its card ({str(error).splitlines()[0]})") from error
    return scorer.eval(), described
