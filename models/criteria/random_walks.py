"""PHEW: the weights that random walks meet which prefer high weights (Patil and Dovrolis 2021, arXiv 2010.11354)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from autosparse.models.criteria.iterative import as_ranks
from autosparse.models.criteria.walk_routes import Layer, Route, route_of
from autosparse.models.gradients import Batches
from autosparse.models.masks.allocation import keep_count
from autosparse.models.masks.mask import Scores, prunable
from autosparse.models.masks.reparametrized import weights

WALKED = 0.5  # share of all weights that the walks rank at least, where they meet as many
CHUNK = 1024  # walks in each direction that are drawn at once


class Odds(NamedTuple):
    """Where a walk goes in one layer: cumulative probabilities (`_cumulative`) by input, by output, and within each kernel."""

    layer: Layer
    start: int  # flat index of the layer's first weight
    onward: Tensor  # rows: input channels, columns: output channels
    back: Tensor  # rows: output channels, columns: input channels
    within: Tensor  # rows: kernels, columns: positions


def phew(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
    """Order of the first visit by biased random walks; ranks 0 to N - 1, float64, the first weight met is the highest.

    Walks alternate: one from an input channel on to the output, one from an output back to the input; they start at each channel
    in turn. From input channel j a walk goes to output channel i with the probability of kernel (i, j)'s share in the L1 mass of
    all kernels of j (backwards: of i), and meets one weight of that kernel, by its share of the kernel's mass, as in the
    authors' code (ShreyasMalakarjunPatil/PHEW). Kernels of linear layers are single weights. `route_of` says how layers are
    joined, those of residual blocks too.

    Walks go on until half of all weights are met (or `density`, if that is more), or until 2 * CHUNK walks meet nothing new. Up
    to there the top k are the mask of a run that stops at k weights, cut within its last walk; weights never met follow by
    magnitude. Of `batches` nothing is used.
    """
    params = prunable(network, head=head)
    route = route_of(network, list(params))
    used = weights(network, params)
    odds = odds_of(used, [layer for segment in route for branch in segment for layer in branch])
    total = sum(param.numel() for param in params.values())
    wanted = keep_count(max(density, WALKED), total)
    never = torch.iinfo(torch.int64).max
    first_visit = torch.full((total,), never)
    begun, met, before = 0, 0, -1
    while before < met < wanted:
        for backward in (False, True):
            for walks, met_weights, position in walk(route, odds, begun, CHUNK, generator, backward=backward):
                times = (2 * (begun + walks) + backward) * len(odds) + position
                first_visit.scatter_reduce_(0, met_weights, times, "amin")
        begun, before, met = begun + CHUNK, met, int((first_visit < never).count_nonzero())
    magnitudes = torch.cat([weight.cpu().abs().reshape(-1) for weight in used.values()])
    by_magnitude = magnitudes.sort(descending=True, stable=True).indices
    best_first = by_magnitude[first_visit[by_magnitude].sort(stable=True).indices]
    return {name: ranks.to(params[name].device) for name, ranks in as_ranks(best_first, params).items()}


def odds_of(params: Mapping[str, Tensor], layers: Sequence[Layer]) -> dict[str, Odds]:
    """The probabilities of one step in each layer, float64 on the CPU."""
    sizes = [param.numel() for param in params.values()]
    starts = {name: sum(sizes[:index]) for index, name in enumerate(params)}
    odds = {}
    for layer in layers:
        kernels = params[layer.name].detach().cpu().double().abs().reshape(layer.outputs, layer.fan, -1)
        columns = layer.columns()
        connected = torch.zeros(layer.outputs, layer.inputs, dtype=torch.float64).scatter_(1, columns, 1.0)
        mass = torch.zeros_like(connected).scatter_(1, columns, kernels.sum(2))
        odds[layer.name] = Odds(
            layer,
            starts[layer.name],
            _cumulative(mass.T, connected.T),
            _cumulative(mass, connected),
            _cumulative(kernels.flatten(0, 1), torch.ones_like(kernels.flatten(0, 1))),
        )
    return odds


def walk(
    route: Route, odds: dict[str, Odds], begun: int, count: int, generator: torch.Generator, *, backward: bool
) -> list[tuple[Tensor, Tensor, int]]:
    """`count` walks: for every layer (walks that go through it, 0 to count - 1; flat index of the weight each meets; position).

    The first is walk number `begun` in its direction and starts at that channel, counted round. Positions order the visits of
    one walk.
    """
    ends = (lambda layer: layer.outputs) if backward else (lambda layer: layer.inputs)
    width = ends((route[-1] if backward else route[0])[0][-1 if backward else 0])
    units = (begun + torch.arange(count)) % width
    visits: list[tuple[Tensor, Tensor, int]] = []
    for segment in reversed(route) if backward else route:
        chosen = (_uniform(count, generator) * len(segment)).long()
        left = units
        for number, branch in enumerate(segment):
            walks = (chosen == number).nonzero().squeeze(1)
            here, size = units[walks], width
            for layer in reversed(branch) if backward else branch:
                here = _enter(here, size, layer, generator, backward=backward)
                here, weights = _step(here, odds[layer.name], generator, backward=backward)
                size = layer.inputs if backward else layer.outputs
                visits.append((walks, weights, len(visits)))
            left = left.index_copy(0, walks, here)
        units, width = left, size
    return visits


def _enter(units: Tensor, width: int, layer: Layer, generator: torch.Generator, *, backward: bool) -> Tensor:
    """Channels of `layer` on the side where the walk comes in, from channels of the layer it leaves, of which there are `width`."""
    channels = layer.outputs if backward else layer.inputs
    if width == channels:
        return units
    inner, outer = (channels, width) if backward else (width, channels)
    if outer % inner:
        return (_uniform(len(units), generator) * channels).long()
    factor = outer // inner  # flattened: each channel of the convolution has this many inputs of the linear layer
    return units // factor if backward else units * factor + (_uniform(len(units), generator) * factor).long()


def _step(units: Tensor, odds: Odds, generator: torch.Generator, *, backward: bool) -> tuple[Tensor, Tensor]:
    """(channel on the other side, flat index of the weight met) for each channel on this side."""
    layer = odds.layer
    to = _draw(odds.back if backward else odds.onward, units, generator)
    outputs, inputs = (units, to) if backward else (to, units)
    kernels = outputs * layer.fan + inputs % layer.fan
    return to, odds.start + kernels * odds.within.shape[1] + _draw(odds.within, kernels, generator)


def _cumulative(mass: Tensor, otherwise: Tensor) -> Tensor:
    """Row r's cumulative shares plus r, so that all rows on end are one sorted vector; a row without mass takes `otherwise`'s."""
    mass = torch.where(mass.sum(1, keepdim=True) > 0, mass, otherwise)
    sums = mass.cumsum(1)
    return sums / sums[:, -1:] + torch.arange(len(mass))[:, None]


def _draw(cumulative: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
    """One column for each of `rows` by that row's probabilities."""
    columns = cumulative.shape[1]
    found = torch.searchsorted(cumulative.flatten(), rows + _uniform(len(rows), generator), right=True)
    return (found - rows * columns).clamp_(0, columns - 1)


def _uniform(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64).cpu()
