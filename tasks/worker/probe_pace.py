"""The same on the cluster: what `autosparse plan` asks a Ray that is not on this machine."""

from typing import Any

from autosparse.tasks.worker.job import Job, body
from autosparse.tasks.worker.pace import PaceInputs, paces


@body(PaceInputs)
def probe_pace(job: Job, inputs: PaceInputs) -> dict[str, Any]:
    """`paces` of the node where this is placed."""
    return paces(inputs, job.cache)
