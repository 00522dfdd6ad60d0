"""What a method is made of. The training loop knows these parts and their order, never a method's name.

Order within one step (`models/training/loop.py`): transforms sample; the gradient source fills `.grad`, with the loss terms of
the controllers; the mask schedule updates while gradients are dense; masked gradients are zeroed, gradients clipped where the training
asks for it; the step wrapper or the optimizer steps, then the method's own optimizers; the controllers look at what happened.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from autosparse.models.errors import not_allowed
from autosparse.models.learning_rate import Rates, learning_rates
from autosparse.models.masks.mask import Mask
from autosparse.models.networks.calls import Shape
from autosparse.models.specs.run_specs import Spec, TrainSpec

State = dict[str, Any]  # tensors, numbers, strings, lists and dicts of them
Facts = dict[str, float]  # what a part tells of itself after an epoch, by name


@dataclass(frozen=True, kw_only=True, slots=True)
class StepInfo:
    """Where a training stands: `step` of `total` (from 0), the learning rate and the loss of this step."""

    step: int
    total: int
    steps_per_epoch: int
    lr: float
    loss: float


class Transform(Protocol):
    """Gates or thresholds between the stored weights and what the network computes with; attached to the network when it is made.

    In eval mode the network is deterministic and computes what it will compute after `bake`.
    """

    def sample(self, generator: torch.Generator) -> None:
        """Draw what one training step needs; forward passes until the next call use it."""
        ...

    def bake(self, network: nn.Module) -> None:
        """Make the network plain again, with the names of its parameters as they were and the same outputs in eval mode to 1e-5."""
        ...


class Controller(Protocol):
    """A quantity that is steered in training: a multiplier, an annealed coefficient, a penalty."""

    def loss_term(self) -> Tensor | None:
        """What is added to the loss of this step, a scalar, or nothing."""
        ...

    def after_step(self, info: StepInfo) -> None:
        """Look at what the step did and adapt."""
        ...

    def facts(self) -> Facts:
        """Named numbers for the record of an epoch."""
        ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State) -> None: ...


class MaskSchedule(Protocol):
    """A mask that changes in training."""

    mask: Mask

    def due(self, info: StepInfo) -> bool:
        """Whether the mask changes in this step."""
        ...

    def update(self, network: nn.Module, optimizer: torch.optim.Optimizer, info: StepInfo, generator: torch.Generator) -> bool:
        """Change `mask`, with dense gradients in `.grad`; weights and optimizer state that go or come are set here.

        Returns whether the optimizer steps afterwards on the same gradients.
        """
        ...

    def facts(self) -> Facts: ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State) -> None: ...


class GradientSource(Protocol):
    """Another way to gradients than backpropagation of the cross entropy."""

    def fill(self, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Write `.grad` of every parameter; returns the mean loss of the batch, detached."""
        ...


class StepWrapper(Protocol):
    """Something around the optimizer's step that sees every batch's gradients."""

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Use `.grad` of this batch; steps `optimizer` when it is time to."""
        ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State) -> None: ...


Rewrite = Callable[[nn.Module, torch.Generator], nn.Module]
"""A network for inference out of a trained one, which may be changed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What a method is built for: a network at step 0, on its device, and the training it is going to have.

    `density` is that of the arm, None for methods without a density target. `seed` is for `seeding.generator(seed, "method", ...)`.
    """

    network: nn.Module
    train: TrainSpec
    density: float | None
    head: bool
    image_shape: Shape
    steps_per_epoch: int
    seed: int
    schedule: Callable[[int, int], float] | None = None  # of a task of one's own, in the place of the training's

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.train.epochs * self.steps_per_epoch

    @property
    def rates(self) -> Rates:
        """(learning rate, momentum) of every step."""
        return learning_rates(self.train, self.steps_per_epoch, self.schedule)


@dataclass(kw_only=True)
class Parts:
    """What a method puts into a training; what it leaves out is backpropagation, the optimizer of the spec, and no mask.

    `optimizer` takes the place of that over all parameters; its learning rate (and momentum, where its groups have one) follows the
    schedule of the spec. `own` are optimizers of a method's own parameters (gates, thresholds), which the other one then leaves
    alone; their learning rates are their own. `cost` is for a rewrite that counts for itself: multiply-adds per image of the
    images that the rewritten network has seen, by the names of weights of its layers.
    """

    transforms: Sequence[Transform] = ()
    gradient: GradientSource | None = None
    schedule: MaskSchedule | None = None
    controllers: Sequence[Controller] = ()
    optimizer: torch.optim.Optimizer | None = None
    own: Sequence[torch.optim.Optimizer] = ()
    wrapper: StepWrapper | None = None
    rewrite: Rewrite | None = None
    cost: Callable[[nn.Module], Mapping[str, float]] | None = None
    facts: Callable[[], Facts] = field(default=dict)

    def report(self) -> Facts:
        """The facts of all parts, for the record of an epoch."""
        parts = [part for part in (self.schedule, *self.controllers) if part]
        return {name: value for part in parts for name, value in part.facts().items()} | self.facts()

    def state_dict(self) -> State:
        """What a training that is taken up again needs beside network and optimizer."""
        return {
            "schedule": self.schedule.state_dict() if self.schedule else {},
            "controllers": [controller.state_dict() for controller in self.controllers],
            "wrapper": self.wrapper.state_dict() if self.wrapper else {},
            "own": [optimizer.state_dict() for optimizer in self.own],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave, after a way through JSON."""
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        for controller, stored in zip(self.controllers, state["controllers"], strict=True):
            controller.load_state_dict(stored)
        if self.wrapper:
            self.wrapper.load_state_dict(state["wrapper"])
        for optimizer, stored in zip(self.own, state["own"], strict=True):
            by_index = {int(index): values for index, values in stored["state"].items()}  # JSON has no integer keys
            optimizer.load_state_dict({**stored, "state": by_index})


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings(Spec):
    """Base of a method's settings: plain fields with declared ranges and defaults, as in `autosparse.models.specs.run_specs`."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method of the fan-out that is not a mask at step 0: an entry of the registry, or an object of one's own module.

    `levels` is what the bare name stands for: one arm per entry, and per density where the method takes one (`by_density`).
    `parts` attaches what is needed to the network. `refuses` names what is wrong with a network, a training or a density (None =
    nothing) before anything is trained. `card` says what is verified and what is a reconstruction.
    """

    settings: type[Settings]
    levels: tuple[Settings, ...]
    by_density: bool
    parts: Callable[[Setup, Any], Parts]
    card: str
    refuses: Callable[[Setup, Any], str | None] = lambda setup, settings: None

    def __post_init__(self) -> None:
        if not (isinstance(self.settings, type) and issubclass(self.settings, Settings)):
            raise not_allowed("Method.settings", self.settings, "a frozen dataclass derived from Settings")
        needed = [one.name for one in fields(self.settings) if one.default is MISSING and one.default_factory is MISSING]
        if needed:
            raise not_allowed(f"Method.settings.{needed[0]}", None, "a default for each field")
        if not self.levels or not all(type(level) is self.settings for level in self.levels):
            raise not_allowed("Method.levels", self.levels, f"at least one {self.settings.__name__}, and nothing else")
        for name, part in (("parts", self.parts), ("refuses", self.refuses)):
            if not callable(part):
                raise not_allowed(f"Method.{name}", part, "a function (setup, settings)")
