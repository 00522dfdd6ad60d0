"""What an image data set holds, asked on the cluster before anything is trained."""

from typing import Any

from autosparse.models.specs.run_specs import DataSpec
from autosparse.tasks.worker.job import Job, body, images


@body
def inspect_data(job: Job) -> dict[str, Any]:
    """Digest, counts, image shape and class names; decoding fills the node's cache."""
    arrays = images(job.spec("data", DataSpec))
    return {
        "digest": arrays.digest,
        "train": len(arrays.train_labels),
        "test": len(arrays.test_labels),
        "shape": list(arrays.image_shape),
        "classes": list(arrays.classes),
    }
