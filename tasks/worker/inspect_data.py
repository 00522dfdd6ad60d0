"""What an image data set holds, asked on the cluster before anything is trained."""

from dataclasses import dataclass
from typing import Any

from autosparse.models.specs.fields import Spec
from autosparse.models.specs.run_specs import DataSpec
from autosparse.tasks.worker.job import Job, body, images


@dataclass(frozen=True, kw_only=True, slots=True)
class DataInputs(Spec):
    """The data set to look into."""

    data: DataSpec


@body(DataInputs)
def inspect_data(job: Job, inputs: DataInputs) -> dict[str, Any]:
    """Digest, counts, image shape and class names, and `notes` where something was left out; decoding fills the node's cache."""
    arrays = images(inputs.data)
    return {
        "digest": arrays.digest,
        "train": len(arrays.train_labels),
        "test": len(arrays.test_labels),
        "shape": list(arrays.image_shape),
        "classes": list(arrays.classes),
        **({"notes": list(arrays.notes)} if arrays.notes else {}),
    }
