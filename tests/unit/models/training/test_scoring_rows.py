"""Which images a network is scored on."""

import torch

from autosparse.models.specs.run_specs import ScoringSpec
from autosparse.models.training.scoring_rows import scoring_rows


def test_batches_hold_no_image_twice_and_depend_on_the_seed() -> None:
    rows = scoring_rows(100, ScoringSpec(batches=3, batch_size=8), 5)
    assert [len(batch) for batch in rows] == [8, 8, 8] and rows[0].dtype == torch.int64
    flat = torch.cat(rows)
    assert len(set(flat.tolist())) == 24 and set(flat.tolist()) <= set(range(100))
    assert not torch.equal(flat, torch.cat(scoring_rows(100, ScoringSpec(batches=3, batch_size=8), 6)))


def test_too_few_images_make_a_short_last_batch() -> None:
    rows = scoring_rows(10, ScoringSpec(batches=3, batch_size=8), 5)
    assert [len(batch) for batch in rows] == [8, 2] and sorted(torch.cat(rows).tolist()) == list(range(10))
