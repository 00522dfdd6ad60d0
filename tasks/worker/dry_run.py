"""One trial of a network on two real examples before it costs anything: build, forward, backward, a step, an evaluation."""

import torch

from autosparse.models import seeding
from autosparse.models.errors import SpecError
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
            if problem.own:
                own = problem.own
                sums = guarded("task.measure", lambda: own.measure(built.eval(), batch))
                own.check_names(own.metrics(sums))
    except SpecError as error:
        raise placed(field, error) from None


def placed(field: str, error: SpecError) -> SpecError:
    """An error about a network, as one about the field of the spec that names it; one about the data as it is."""
    said = str(error)
    return SpecError(field + said.removeprefix("network") if said.startswith("network") else said, error.details)
