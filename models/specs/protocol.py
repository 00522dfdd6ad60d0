"""The protocol of a comparison: what has to be the same in two arms before they may stand in one table."""

from dataclasses import dataclass, replace
from typing import Literal

from autosparse.models.specs.fields import fingerprint
from autosparse.models.specs.run_specs import DataSpec, ScoringSpec, Spec, TrainSpec

COMPACTED = "compacted"  # the part `training` of a protocol under which masks are trained as smaller networks


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol(Spec):
    """How an arm was scored and trained; `fields()` goes into its report.

    Images, augmentation and normalisation (`data`), budget and optimizer (`train`), the batches that scores are taken on
    (`scoring`) and how BatchNorm acts meanwhile. The probe of `scoring` counts where the arm's method `looks_ahead`: no other
    arm is changed by it. `compact`: masks are trained as smaller networks, whose dead channels are zero and stay so. The content of
    the images has a digest of its own in the reports.
    """

    data: DataSpec
    train: TrainSpec
    scoring: ScoringSpec
    looks_ahead: bool = False
    compact: bool = False
    scoring_batchnorm: Literal["train"] = "train"  # models/gradients.py: batch statistics

    def fields(self) -> dict[str, str]:
        """A fingerprint of each part by name, of the whole but the probe as `protocol`, and `lookahead` where there is a probe."""
        shared = replace(self, scoring=self.scoring.strict, looks_ahead=False)
        parts = {name: fingerprint(getattr(shared, name)) for name in ("data", "train", "scoring")}
        probe = {"lookahead": fingerprint(self.scoring)} if self.looks_ahead else {}
        known = {"protocol": fingerprint(shared), **parts, **probe, "scoring_batchnorm": self.scoring_batchnorm}
        return known | ({"training": COMPACTED} if self.compact else {})
