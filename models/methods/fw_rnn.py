"""Frank-Wolfe steps inside a small ball, whose displacement is the gradient of an outer optimizer (arXiv 2010.05397)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from autosparse.models.methods.contract import Facts, Method, Parts, Settings, Setup, State
from autosparse.models.specs.rules import Range


@dataclass(frozen=True, kw_only=True, slots=True)
class FrankWolfe(Settings):
    """`radius` of the ball around the weights, per tensor; `inner` batches, K, go into one step of the outer optimizer.

    `iterate`: where the gradient of the next batch is taken. `ball`: at w + D, which stays in the ball; `accumulate`: every new D is
    added to the place before, as the public code does, which may leave the ball up to K times its radius.
    `outer`: Adam at the peak learning rate `outer_lr`, which follows the shape of the spec's schedule, without decay; or the spec's
    SGD.
    """

    radius: Annotated[float, Range(above=0)] = 1e-3
    inner: Annotated[int, Range(least=1)] = 1
    iterate: Literal["ball", "accumulate"] = "ball"
    outer: Literal["adam", "sgd"] = "adam"
    outer_lr: Annotated[float, Range(above=0)] = 1e-3


@torch.no_grad()
def frank_wolfe_(direction: Tensor, gradient: Tensor, inner: int, radius: float) -> Tensor:
    """Inner step `inner` (from 1) of one tensor, in place: D <- (1 - 1/t) D - (radius / t) g / ||g||.

    -radius * g / ||g|| is the point of the ball where the linearised loss is least, 1/t the step towards it, so that D is -radius
    times the mean of the unit gradients. A gradient of exactly zero counts as the unit gradient 0.
    """
    norm = gradient.norm()
    scale = torch.where(norm > 0, radius / inner / norm, 0.0)
    return direction.mul_(1 - 1 / inner).sub_(gradient * scale)


class FrankWolfeSteps:
    """The step wrapper: K batches to one step of the optimizer. The last cycle of a training ends with the training.

    Between two batches of a cycle the network holds the inner point; `kept` are the weights that come back before the optimizer
    steps. An evaluation amid a cycle sees the inner point. `network` gives the parameters in their order.
    """

    def __init__(self, network: nn.Module, settings: FrankWolfe, *, steps: int, peak: float) -> None:
        self._parameters = [param for param in network.parameters() if param.requires_grad]
        self._settings, self._steps, self._peak = settings, steps, peak
        self._inner, self._done = 0, 0
        self._directions = [torch.zeros_like(param).detach() for param in self._parameters]
        self._kept = [param.detach().clone() for param in self._parameters]
        self._agreement = torch.zeros(())

    @torch.no_grad()
    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """One inner step on `.grad`, and after K of them the step of `optimizer` on -D / radius, from where the cycle began."""
        settings = self._settings
        if self._inner == 0:
            _copy_(self._kept, self._parameters)
        self._inner, self._done = self._inner + 1, self._done + 1
        for param, direction in zip(self._parameters, self._directions, strict=True):
            gradient = torch.zeros_like(param) if param.grad is None else param.grad
            frank_wolfe_(direction, gradient, self._inner, settings.radius)
        if self._inner < settings.inner and self._done < self._steps:
            start = self._kept if settings.iterate == "ball" else self._parameters
            _copy_(self._parameters, [place + move for place, move in zip(start, self._directions, strict=True)])
            return
        _copy_(self._parameters, self._kept)
        norms = torch.stack([direction.norm() for direction in self._directions])
        self._agreement = norms.mean() / settings.radius
        for param, direction in zip(self._parameters, self._directions, strict=True):
            param.grad = direction.div(-settings.radius)
        self._move(optimizer)
        self._inner = 0

    def _move(self, optimizer: torch.optim.Optimizer) -> None:
        if self._settings.outer == "adam":
            for group in optimizer.param_groups:
                group["lr"] *= self._settings.outer_lr / self._peak
        optimizer.step()

    def facts(self) -> Facts:
        """`fw_agreement`: ||D|| / radius of the last outer step, mean over the tensors; 1 where all K gradients point one way."""
        return {"fw_agreement": float(self._agreement)}

    def state_dict(self) -> State:
        return {
            "inner": self._inner,
            "done": self._done,
            "directions": self._directions,
            "kept": self._kept,
            "agreement": self._agreement,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._inner, self._done = state["inner"], state["done"]
        _copy_(self._directions, state["directions"])  # into tensors of the parameters' memory layout
        _copy_(self._kept, state["kept"])
        self._agreement = state["agreement"].to(self._directions[0].device)


@torch.no_grad()
def _copy_(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def _parts(setup: Setup, settings: FrankWolfe) -> Parts:
    wrapper = FrankWolfeSteps(setup.network, settings, steps=setup.steps, peak=setup.train.lr)
    outer = torch.optim.Adam(setup.network.parameters(), lr=settings.outer_lr) if settings.outer == "adam" else None
    return Parts(wrapper=wrapper, optimizer=outer, facts=wrapper.facts)


FW_RNN = Method(
    settings=FrankWolfe,
    levels=(FrankWolfe(), FrankWolfe(inner=5)),
    by_density=False,
    parts=_parts,
    card=(
        "Not sparse: an optimizer, for any network. Update rule, radius, K = 1 and Adam as in the public code. The inner point w + D "
        "(iterate=ball) is the Frank-Wolfe reading, a reconstruction; the public code accumulates D and leaves the ball. Ours: a zero "
        "gradient gives a zero step (there NaN), the outer learning rate follows the schedule, a cycle ends with the training, the "
        "state survives a restart. K = 1 is Adam on per-tensor normalised gradients. A masked weight stays zero: D is zero where "
        "gradients are."
    ),
)
