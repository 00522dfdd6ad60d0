"""Dual averaging with a growing threshold: SGD on an accumulator, of which the weights are what a threshold leaves over."""

# pyright: reportPrivateImportUsage=false

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autosparse.models.errors import not_allowed
from autosparse.models.masks import mask as masks
from autosparse.models.masks.mask import Mask
from autosparse.models.methods.contract import Facts

ACCUMULATOR = "accumulator"

Prox = Callable[[list[Tensor], list[Tensor], float], None]
"""(points, accumulators, threshold): write into each point what the threshold leaves of its accumulator, of the same shape.

The threshold is above 0. NaN stays NaN.
"""


class DualAveraging(torch.optim.Optimizer):
    """Generalised regularised dual averaging (gRDA; Chao et al. 2020, arXiv 2006.09358), for weights w, step n = 1, 2, ... and rate lr_n:

        v_n = v_{n-1} - lr_n * gradient at w_{n-1},                         v_0 = w_0
        G_n = G_{n-1} + c * lr_n ** (1/2 + mu) * (n ** mu - (n-1) ** mu),   G_0 = 0
        w_n = prox(v_n, G_n)

    At a constant rate G_n = c * lr ** (1/2 + mu) * n ** mu. `prox` is a soft threshold of single weights, or of groups. No momentum,
    no weight decay. With c = 0 it is SGD, bit for bit.

    Groups of parameters may differ in lr, c and mu, each has its threshold; one with c = 0 is not thresholded, and `prox` sees the
    parameters of one group at a time, in their order. A parameter without a gradient has the gradient 0.

    State, there from the beginning: v per parameter, as `accumulator`; `step` and `threshold` per group, plain numbers that JSON
    keeps to the last bit. Raises SpecError: lr < 0, c < 0, mu not in (0, 1).
    """

    def __init__(self, params: Iterable[Any], *, lr: float, c: float, mu: float, prox: Prox | None = None) -> None:
        self.prox = prox or soft_threshold
        super().__init__(params, {"lr": lr, "c": c, "mu": mu, "step": 0, "threshold": 0.0})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; v_0 = w_0 is taken here, in the memory layout of the parameter."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for field, allowed, inside in (
            ("lr", ">= 0", group["lr"] >= 0),
            ("c", ">= 0", group["c"] >= 0),
            ("mu", "> 0 and < 1", 0 < group["mu"] < 1),
        ):
            if not inside:
                raise not_allowed(field, group[field], allowed)
        for param in group["params"]:
            self.state[param][ACCUMULATOR] = param.detach().clone(memory_format=torch.preserve_format)

    def threshold(self) -> float:
        """G after the last step, the largest of all groups."""
        return max(group["threshold"] for group in self.param_groups)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step on the gradients in `.grad`; returns the loss of `closure` where there is one."""
        loss = None
        if closure:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step(group)
        return loss

    def _step(self, group: dict[str, Any]) -> None:
        params = group["params"]
        accumulators = [self.state[param][ACCUMULATOR] for param in params]
        moving = [(self.state[param][ACCUMULATOR], param.grad) for param in params if param.grad is not None]
        if moving:
            # one fused operation, as in SGD: multiplied first, the last bit would differ
            torch._foreach_add_([pair[0] for pair in moving], [pair[1] for pair in moving], alpha=-group["lr"])
        before, group["step"] = group["step"], group["step"] + 1
        growth = group["step"] ** group["mu"] - before ** group["mu"]
        group["threshold"] += group["c"] * group["lr"] ** (0.5 + group["mu"]) * growth
        if group["threshold"] > 0:
            self.prox(params, accumulators, group["threshold"])
        else:
            torch._foreach_copy_(params, accumulators)


def soft_threshold(points: list[Tensor], accumulators: list[Tensor], threshold: float) -> None:
    """sign(v) * max(abs(v) - threshold, 0) of each number, as v minus v cut to +-threshold: without memory of its own."""
    torch._foreach_copy_(points, accumulators)
    torch._foreach_clamp_max_(points, threshold)
    torch._foreach_clamp_min_(points, -threshold)
    torch._foreach_neg_(points)
    torch._foreach_add_(points, accumulators)


def over_network(
    network: nn.Module, thresholded: Sequence[nn.Parameter], *, lr: float, c: float, mu: float, prox: Prox | None = None
) -> DualAveraging:
    """Dual averaging of all parameters of a network; those that are not `thresholded` have a group of their own with c = 0."""
    chosen = {id(param) for param in thresholded}
    rest = [param for param in network.parameters() if id(param) not in chosen]
    groups = [{"params": list(thresholded)}, {"params": rest, "c": 0.0}]
    return DualAveraging([group for group in groups if group["params"]], lr=lr, c=c, mu=mu, prox=prox)


def densities(network: nn.Module, *, head: bool) -> Facts:
    """`density`: share of the prunable weights that are not exactly zero; `density_all`: the same of all parameters."""
    return {
        "density": masks.density(nonzero(masks.prunable(network, head=head))),
        "density_all": masks.density(nonzero(dict(network.named_parameters()))),
    }


def nonzero(params: Mapping[str, nn.Parameter]) -> Mask:
    """The mask of what is not exactly zero."""
    return {name: param.detach() != 0 for name, param in params.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Groups that are made alike: group i has slice i of each member, which is (place in the list of parameters, dimension).

    All members are of one length along their dimension. `weight` multiplies the threshold.
    """

    members: tuple[tuple[int, int], ...]
    weight: float = 1.0


@dataclass(frozen=True)
class GroupThreshold:
    """A prox for groups: v_g * max(1 - weight * threshold / norm(v_g), 0). A group vanishes as a whole; one number: `soft_threshold`.

    Each parameter has to be in one family, and in one only.
    """

    families: Sequence[Family]

    def __call__(self, points: list[Tensor], accumulators: list[Tensor], threshold: float) -> None:
        for family in self.families:
            left = (1 - family.weight * threshold / group_norms(family, accumulators)).clamp_(min=0)
            for place, dim in family.members:
                values = accumulators[place]
                shape = [-1 if axis == dim else 1 for axis in range(values.ndim)]
                torch.mul(values, left.to(values.dtype).view(shape), out=points[place])


def group_norms(family: Family, tensors: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of each group, (number of groups,)."""
    norms = [_slice_norms(tensors[place], dim) for place, dim in family.members]
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms), dim=0)


def _slice_norms(values: Tensor, dim: int) -> Tensor:
    others = [axis for axis in range(values.ndim) if axis != dim]
    return torch.linalg.vector_norm(values, dim=others) if others else values.abs()
