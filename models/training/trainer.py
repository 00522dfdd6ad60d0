"""A network in training: its parameters, optimizer, mask, what a method changes, and where it stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from autosparse.models.errors import not_allowed
from autosparse.models.masks import mask as masks
from autosparse.models.masks.mask import Mask
from autosparse.models.methods.contract import Parts
from autosparse.models.specs.optimizers import SGD
from autosparse.models.specs.run_specs import DataSpec, JobSpec, TrainSpec
from autosparse.models.training.examples import Examples
from autosparse.models.training.objective import Classification, Objective
from autosparse.models.training.optimizers import make_optimizer


@dataclass(frozen=True)
class Rank:
    """This process's place among those that train together; each takes an equal, contiguous share of every batch."""

    index: int = 0
    count: int = 1

    def share(self, size: int) -> slice:
        """The rows of a batch of `size` that belong to this rank."""
        return slice(self.index * size // self.count, (self.index + 1) * size // self.count)


@dataclass
class Trainer:
    """A network in training: `network` holds the parameters, `forward` is the same or its DDP or compiled wrapper.

    `parts` is what a method changes about the training; its mask schedule, where it has one, rules over `mask`.
    """

    network: nn.Module
    forward: nn.Module
    spec: TrainSpec
    data: DataSpec  # with mean and std filled in
    job: JobSpec
    train: Examples
    test: Examples
    seed: int
    rank: Rank = Rank()
    mask: Mask | None = None
    step: int = 0
    parts: Parts = field(default_factory=Parts)
    objective: Objective = field(default_factory=Classification)
    optimizer: torch.optim.Optimizer = field(init=False)
    scales: list[float] = field(init=False)  # of the learning rate, per group of parameters
    held: list[tuple[nn.Parameter, Tensor]] = field(init=False)  # masked weights with their masks

    def __post_init__(self) -> None:
        if self.spec.batch_size % self.rank.count:
            raise not_allowed("train.batch_size", self.spec.batch_size, f"a multiple of the {self.rank.count} workers")
        if self.spec.batch_size // self.rank.count % self.spec.accumulate:
            shares = f"a number that divides the {self.spec.batch_size // self.rank.count} examples of a worker"
            raise not_allowed("train.accumulate", self.spec.accumulate, shares)
        if self.steps_per_epoch < 1:
            raise not_allowed("train.batch_size", self.spec.batch_size, f"at most the {len(self.train)} training examples")
        of_task = None if self.parts.optimizer else self.objective.optimizer(self.network, self.spec)
        self.optimizer = self.parts.optimizer or of_task or self._of_spec()
        groups = self.optimizer.param_groups
        self.scales = [float(group.get("lr", self.spec.lr)) / self.spec.lr if of_task else 1.0 for group in groups]
        self._sets_momentum = of_task is None and (bool(self.parts.optimizer) or self.spec.optimizer == SGD)
        self.hold(self.parts.schedule.mask if self.parts.schedule else self.mask)

    def _of_spec(self) -> torch.optim.Optimizer:
        own = {id(param) for optimizer in self.parts.own for group in optimizer.param_groups for param in group["params"]}
        return make_optimizer(self.spec, [param for param in self.network.parameters() if id(param) not in own])

    def set_rates(self, lr: float, momentum: float) -> None:
        """Of the next step. A task's own optimizer keeps what its groups of parameters began with as a multiple of the spec's lr.

        Momentum moves in SGD and in the optimizers of methods; that of any other stays as it was made.
        """
        for group, scale in zip(self.optimizer.param_groups, self.scales, strict=True):
            group["lr"] = lr * scale
            if self._sets_momentum and "momentum" in group:
                group["momentum"] = momentum

    @torch.no_grad()
    def keep_zeros(self) -> None:
        """Set masked weights to zero after a step. SGD has not moved them: their decay, momentum and gradient are zero."""
        if type(self.optimizer) is not torch.optim.SGD:
            for parameter, keep in self.held:
                parameter.masked_fill_(keep == 0, 0)

    def hold(self, mask: Mask | None) -> None:
        """From now on train under `mask`."""
        self.mask = mask
        self.held = _held_gradients(self.network, mask)
        if mask is not None:
            masks.apply_(self.network, mask)

    def state(self) -> dict[str, Any]:
        """The optimizer's state dict, with what the method's parts remember under `parts`."""
        return {**self.optimizer.state_dict(), "parts": self.parts.state_dict()}

    def restore(self, network: Mapping[str, Tensor], state: Mapping[str, Any], step: int) -> None:
        """Go on from the network's state dict and a `state()`: the next step is `step`.

        Momentum and its like take the memory layout of its parameter, because fused SGD walks through both in the order of memory.
        """
        self.network.load_state_dict(network)
        self.optimizer.load_state_dict({name: value for name, value in state.items() if name != "parts"})
        for parameter, values in self.optimizer.state.items():
            for name, value in values.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    values[name] = torch.empty_like(parameter).detach().copy_(value)
        self.parts.load_state_dict(state["parts"])
        if self.parts.schedule:
            self.hold(self.parts.schedule.mask)
        self.step = step

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass over the training examples."""
        return len(self.train) // self.spec.batch_size

    @property
    def device(self) -> torch.device:
        """Where examples and parameters are."""
        return next((param.device for param in self.network.parameters()), torch.device("cpu"))


def _held_gradients(network: nn.Module, mask: Mask | None) -> list[tuple[nn.Parameter, Tensor]]:
    """Masked parameters with their masks as float factors in the parameter's own memory layout."""
    if mask is None or all(bool(keep.all()) for keep in mask.values()):
        return []
    parameters = dict(network.named_parameters())
    return [(parameters[name], torch.empty_like(parameters[name]).detach().copy_(keep)) for name, keep in mask.items()]
