"""The protocol of a comparison: what has to be the same in two arms before they may stand in one table."""

from dataclasses import dataclass
from typing import Literal

from models.spec_fields import fingerprint
from models.specs import DataSpec, ScoringSpec, Spec, TrainSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol(Spec):
    """How an arm was scored and trained; `fields()` goes into its report.

    Images, augmentation and normalisation (`data`), budget and optimizer (`train`), the batches that scores are taken on
    (`scoring`) and how BatchNorm acts meanwhile. The content of the images has a digest of its own in the reports.
    """

    data: DataSpec
    train: TrainSpec
    scoring: ScoringSpec
    scoring_batchnorm: Literal["train"] = "train"  # models/gradients.py: batch statistics

    def fields(self) -> dict[str, str]:
        """A fingerprint of each part by name, and of the whole as `protocol`."""
        parts = {name: fingerprint(getattr(self, name)) for name in ("data", "train", "scoring")}
        return {"protocol": fingerprint(self), **parts, "scoring_batchnorm": self.scoring_batchnorm}
