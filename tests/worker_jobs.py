"""A job as its body sees it, without Ray."""

from types import SimpleNamespace
from typing import Any

import torch

from autosparse.models.specs.run_specs import JobSpec, ScoringSpec
from autosparse.models.training.trainer import Rank
from autosparse.storage.store import Store
from autosparse.tasks.worker.inputs import Launch, RunInputs
from autosparse.tasks.worker.job import Job

NOBODY: Any = SimpleNamespace(put=lambda event: None)
SCORING = ScoringSpec(batches=1, batch_size=64)


def job_on(store: Store, *, resources: JobSpec | None = None, earlier: tuple[str, ...] = ()) -> Job:
    """The job `job` of the run `test`, alone, on a CPU; nobody listens to it."""
    launch = Launch(job="job", resources=resources or JobSpec(), earlier=earlier)
    return Job(RunInputs(storage=store.root, name="test", scoring=SCORING), launch, NOBODY, store, Rank(), torch.device("cpu"))
