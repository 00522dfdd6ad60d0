"""A fitted scorer out of its folder, ready for `prune`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autosparse.library.scorer_files import features_seen, load_scorer, read_scorer
from autosparse.models.criteria.contract import Criterion
from autosparse.models.errors import DataError, not_allowed
from autosparse.models.scorers.criterion import as_criterion, inputs, looking_ahead
from autosparse.models.scorers.drift import Drift, FirstLook, compare
from autosparse.models.specs.run_specs import SCORER, SCORER_GROWTH


@dataclass
class Scorer:
    """A fitted scorer: the module, its card, and whether it looks ahead. `address` says where it came from."""

    module: nn.Module
    card: dict[str, Any]
    address: str
    ahead: bool = False
    look: FirstLook = field(init=False, repr=False)
    found: Drift | None = field(init=False, repr=False, default=None)  # of the network that was pruned last

    @property
    def name(self) -> str:
        """Its name among the methods."""
        return SCORER_GROWTH if self.ahead else SCORER

    def criterion(self, generator: torch.Generator, device: torch.device) -> Criterion:
        """The scorer as one criterion among the others; `generator` chooses the weights whose features are compared."""
        self.look = FirstLook(generator)
        score = looking_ahead if self.ahead else as_criterion
        return Criterion(score=score(self.module.to(device), watch=self.look))

    def drift(self, network: nn.Module, batches: Any, *, head: bool) -> Drift | None:
        """How far the network's features are from those the scorer learned from; None where its card does not say."""
        training = features_seen(self.card)
        if training is None:
            return None
        if self.look.seen is None:  # a head that ranks by growth alone asks for no features
            self.look(*inputs(network, batches, head=head))
        self.found = compare(training, self.look.found)
        return self.found


def scorer(address: str | Path, *, ahead: bool = False) -> Scorer:
    """The scorer of a folder, local or s3://, with scorer.json and scorer.safetensors. `ahead`: let it look ahead before it cuts.

    Raises DataError where the folder holds no scorer, SpecError for a `models:/` address (the command line takes those).
    """
    text = str(address).rstrip("/")
    if text.startswith("models:/"):
        raise not_allowed("scorer", text, "a folder; 'autosparse prune --scorer models:/...' asks the registry")
    if "://" not in text:
        folder = Path(text).expanduser()
        try:
            files = [(folder / name).read_bytes() for name in ("scorer.json", "scorer.safetensors")]
        except OSError as error:
            raise DataError(f"{text}: no scorer's folder ({error.strerror}: {Path(str(error.filename)).name})") from None
        return scorer_of_files(*files, text, ahead=ahead)
    from autosparse.storage.open_store import open_store  # which needs pyarrow and, for S3, s3fs

    root, _, name = text.rstrip("/").rpartition("/")
    module, card = load_scorer(open_store(root), name)
    return Scorer(module, card, text, ahead)


def scorer_of_files(card: bytes, weights: bytes, where: str, *, ahead: bool = False) -> Scorer:
    """The scorer of the two files' contents; `where` names them in errors."""
    module, described = read_scorer(card, weights, where)
    return Scorer(module, described, where, ahead)
