"""SynFlow: iterative pruning by synaptic flow, without data (Tanaka et al. 2020, arXiv 2006.05467)."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from autosparse.models.criteria.iterative import ranks_of_death
from autosparse.models.errors import DivergedError
from autosparse.models.gradients import Batches
from autosparse.models.masks.allocation import keep_count
from autosparse.models.masks.flowing import Flow
from autosparse.models.masks.linearised import linearised, ones_for, opened, pass_through, settled
from autosparse.models.masks.mask import Mask, Scores, collapsed_layers, prunable
from autosparse.models.masks.mask import density as density_of
from autosparse.models.masks.reparametrized import weights
from autosparse.models.networks.calls import Inputs, inputs_of

ITERATIONS = 100


def synflow(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
    """Rank of each weight's death on the exponential schedule to `density` in 100 iterations; ranks 0 to N - 1, float64.

    Iteration k scores the surviving network by `flow` and keeps its best `density ** (k / 100)`. A weight ranks by the
    iteration that removed it, then by its flow there, so the top k of this one vector are the masks of the whole schedule:
    at `density` the mask of the paper's algorithm, at a larger one that of the same schedule stopped on its way (a run to
    density d takes `100 * log(d) / log(density)` iterations instead of 100). On a ResNet-8 of 307k weights the mask at .05
    on the way to .02 shares 94 % of its weights with that of its own run of 100 iterations (n=1).

    Of `batches` only the image shape counts.
    Raises DivergedError when the flow is beyond float64.
    """
    used = {name: opened(weight) for name, weight in weights(network, prunable(network, head=head)).items()}
    return ranks_by_flow(network, lambda alive: {name: weight.abs() for name, weight in used.items()}, batches, density=density)


def ranks_by_flow(
    network: nn.Module, strengths: Callable[[float], Mapping[str, Tensor]], batches: Batches, *, density: float, hubs: float = 1.0
) -> Scores:
    """The ranks of `synflow` with other numbers in the place of abs(w).

    `strengths(alive)` gives positive numbers of the shapes of the weights that compete, for an iteration in which `alive` of
    their weights are left; the other parameters count by their absolute values. `hubs` tempers the flow (see `tempered`).

    Where the mask at `density` would empty a layer, because its branch starves beside a stronger one, the schedule runs once more
    with the flow balanced between branches that meet (`Flow.balanced`); not for networks of our own zoo, whose results are
    recorded. Raises DivergedError when the flow is beyond float64.
    """
    linear = linearised(network)
    ones = ones_for(inputs_of(batches[0]))
    rules = settled(linear, ones)
    may_balance = not _is_recorded(network)
    competing = strengths(1.0).keys()
    params = {name: param for name, param in linear.named_parameters() if name in competing}

    def score_at(alive: Mask) -> Scores:
        if collapsed_layers(alive) and may_balance and not rules.balanced:
            raise _EmptiedError
        with torch.no_grad():
            for name, strength in strengths(density_of(alive)).items():
                torch.mul(strength, alive[name], out=params[name])
        flows = flow(linear, params, ones, rules)
        if hubs == 1.0:
            return flows
        return {name: tempered(values, params[name].detach(), alive[name], hubs) for name, values in flows.items()}

    try:
        ranks = ranks_of_death(score_at, params, ITERATIONS, density)
        if not (may_balance and _empties(ranks, density)):
            return ranks
    except _EmptiedError:
        pass
    rules.balanced = True
    return ranks_of_death(score_at, params, ITERATIONS, density)


class _EmptiedError(Exception):
    """The schedule has emptied a layer: no use going on."""


def _empties(ranks: Scores, density: float) -> bool:
    """Whether the mask at this density has no weight of some layer."""
    total = sum(values.numel() for values in ranks.values())
    return any(float(values.max()) < total - keep_count(density, total) for values in ranks.values())


def _is_recorded(network: nn.Module) -> bool:
    """Networks of our own zoo: results of many runs hang on the plain flow, of arms with floors for shortcuts that it empties too."""
    return type(network).__module__.startswith("autosparse.models.networks.")


def tempered(flow: Tensor, strength: Tensor, alive: Tensor, hubs: float) -> Tensor:
    """The flow through a layer's weights with less of a lead for those whose channels carry much already.

    Each weight's flow is its strength times what its paths carry beside it; the latter, relative to its mean over the layer, is taken
    to the power `hubs`. 1.0 = the flow itself, by which the rich get richer until few channels carry all; 0.0 = strength alone inside
    the layer. What a layer carries as a whole stays about the same.
    """
    beside = torch.where(alive & (strength > 0), flow / strength, 0.0)  # a weight pruned before has no strength
    mean = beside.sum() / alive.sum().clamp(min=1)
    return torch.where(alive, strength * mean * (beside / mean.clamp(min=torch.finfo(mean.dtype).tiny)) ** hubs, 0.0)


def flow(linear: nn.Module, params: dict[str, nn.Parameter], ones: Inputs, rules: Flow | None = None) -> Scores:
    """w * dR/dw with R the sum of the outputs for the input `ones`: the strength of all paths through each weight.

    `rules` say what a path is (`models/masks/rules.py`); None = those of networks that do not feed back to themselves.
    """
    total = pass_through(linear, ones, rules or Flow())
    if not total.isfinite():
        raise DivergedError(f"synflow: a flow of {total.item()} is not allowed; allowed: within float64")
    slopes = torch.autograd.grad(total, list(params.values()), materialize_grads=True)
    return {name: slope.mul_(param.detach()) for slope, (name, param) in zip(slopes, params.items(), strict=True)}
