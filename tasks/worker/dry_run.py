"""One trial of a network on two real examples before it costs anything: a training step, an evaluation, a score, a look at its paths."""

from typing import Any

import torch
from torch import nn

from autosparse.models import seeding
from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.errors import SpecError
from autosparse.models.gradients import ScoringBatches
from autosparse.models.masks import gates
from autosparse.models.masks import mask as masks
from autosparse.models.networks.trial import guarded, try_out
from autosparse.models.specs.run_specs import NetworkSpec
from autosparse.tasks.worker.problem import Problem, initial_network

EXAMPLES = 2


def dry_run(problem: Problem, network: NetworkSpec, field: str) -> None:
    """Raise SpecError, in one line that begins with `field`, for what would go wrong later; an error of a person's code with its place."""
    try:
        built = initial_network(network, problem, seed=0)
        rows = torch.arange(min(EXAMPLES, problem.sizes["train"]))
        batch = next(problem.few([rows], "cpu", channels_last=False))
        with seeding.scoped(0, "dry-run"):
            try_out(built, [batch], problem.own.loss if problem.own else None)
            guarded("network: a score of it", lambda: _scored(problem, network, built, batch))
            if problem.own:
                own = problem.own
                sums = guarded("task.measure", lambda: own.measure(built.eval(), batch))
                own.check_names(own.metrics(sums))
    except SpecError as error:
        raise placed(field, error) from None


def _scored(problem: Problem, network: NetworkSpec, built: nn.Module, batch: Any) -> None:
    batches = ScoringBatches([batch])
    batches.loss = problem.own.loss if problem.own else None
    CRITERIA["snip"].score(built, batches, torch.Generator().manual_seed(0), head=network.prune_head, density=1.0)
    gates.effective_density(built, masks.full(masks.prunable(built, head=network.prune_head)), problem.shape)


def placed(field: str, error: SpecError) -> SpecError:
    """An error about a network, as one about the field of the spec that names it; one about the data as it is."""
    said = str(error)
    return SpecError(field + said.removeprefix("network") if said.startswith("network") else said, error.details)
