"""On which training images a network is scored: the same for criteria, the scorer and the feature data set."""

import torch
from torch import Tensor

from autosparse.models import seeding
from autosparse.models.specs.run_specs import ScoringSpec


def scoring_rows(images: int, scoring: ScoringSpec, seed: int) -> list[Tensor]:
    """The rows, int64, of each scoring batch out of `images` training images: drawn by seed, no image twice.

    Too few images make fewer batches, the last of them perhaps a short one; of one image alone only where there is no other, because
    it has no statistics for BatchNorm.
    """
    order = torch.randperm(images, generator=seeding.generator(seed, "scoring"))
    batches = list(order[: scoring.batches * scoring.batch_size].split(scoring.batch_size))
    return batches[:-1] if len(batches) > 1 and len(batches[-1]) == 1 < scoring.batch_size else batches
