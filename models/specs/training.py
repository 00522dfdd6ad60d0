"""How a network is trained, as a spec."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from autosparse.models.errors import SpecError, not_allowed
from autosparse.models.specs import optimizers
from autosparse.models.specs.fields import Spec, check_fields
from autosparse.models.specs.json_object import NOTHING, JsonObject
from autosparse.models.specs.rules import Count, Known, Range

OF_MOMENTUM = {"momentum": 0.0, "nesterov": False}  # what stands in them beside an optimizer that has none


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSpec(Spec):
    """One training: the last short batch dropped, weight decay on every parameter, in the way of the optimizer.

    `batch_size` counts the examples of one step over all workers. `warmup` is the rising share of the one-cycle schedule
    (other values as in torch.optim.lr_scheduler.OneCycleLR, which moves the momentum of SGD too); `milestones` are epochs, each
    multiplies lr by `gamma`.

    `optimizer` is a name of torch.optim in any case, `settings` are its other keywords, `{"betas": [0.9, 0.95]}`. `clip` is the largest
    norm of all gradients together, taken over kept weights. A step is made of `accumulate` parts of its batch, one after another, its
    loss is the mean of theirs: BatchNorm sees the parts. `label_smoothing` and `mixup`, the alpha of its Beta distribution (Zhang et al.
    2018, arXiv 1710.09412), are of image classification. Test examples are looked at every `evaluate_every` epochs and after the last.
    """

    epochs: Count
    batch_size: Count
    lr: Annotated[float, Range(above=0)]
    momentum: Annotated[float, Range(least=0, below=1)]
    nesterov: bool
    weight_decay: Annotated[float, Range(least=0)]
    schedule: Literal["constant", "onecycle", "steps", "cosine"]
    warmup: Annotated[float, Range(above=0, below=1)] = 0.3
    milestones: tuple[Count, ...] = ()
    gamma: Annotated[float, Range(above=0, most=1)] = 0.1
    optimizer: Annotated[str, Known(optimizers.names)] = optimizers.SGD
    settings: JsonObject = NOTHING
    clip: Annotated[float, Range(above=0)] | None = None
    accumulate: Count = 1
    label_smoothing: Annotated[float, Range(least=0, below=1)] = 0.0
    mixup: Annotated[float, Range(least=0)] = 0.0
    evaluate_every: Count = 1

    def __post_init__(self) -> None:
        if isinstance(self.optimizer, str):
            object.__setattr__(self, "optimizer", self.optimizer.lower())
        object.__setattr__(self, "settings", JsonObject.of("settings", self.settings))
        optimizers.refuse(self.optimizer)
        check_fields(self)
        if wrong := list(self._wrong()):
            raise SpecError("\n".join(map(str, wrong)))

    def _wrong(self) -> Iterator[SpecError]:
        """What no single field can know."""
        for name, usual in OF_MOMENTUM.items():
            if name not in optimizers.keywords(self.optimizer) and getattr(self, name):
                yield not_allowed(name, getattr(self, name), f"{usual} beside optimizer {self.optimizer!r}, which has no {name}")
        yield from optimizers.wrong_settings(self.optimizer, self.settings)
        if self.batch_size % self.accumulate:
            yield not_allowed("accumulate", self.accumulate, f"a number that divides batch_size {self.batch_size}")

    def evaluates(self, epoch: int) -> bool:
        """Whether test examples are looked at after this epoch, counted from 0."""
        return (epoch + 1) % self.evaluate_every == 0 or epoch + 1 == self.epochs

    @classmethod
    def settle(cls, data: dict[str, Any], named: Collection[str]) -> None:
        """Where another optimizer was asked for now, momentum that came with the one before and that it does not have goes with that."""
        name = data.get("optimizer")
        if "optimizer" in named and isinstance(name, str) and (taken := optimizers.keywords(name.lower())):
            data.update({field: usual for field, usual in OF_MOMENTUM.items() if field not in named and field not in taken})
