"""The optimizers of torch by name, lower case, and which keywords each takes."""

import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from autosparse.models.errors import SpecError, not_allowed, unknown_name

if TYPE_CHECKING:
    from torch.optim import Optimizer

SGD = "sgd"
FIELDS = ("lr", "weight_decay", "momentum", "nesterov")  # of a TrainSpec, which an optimizer is given where it takes them
NEVER = ("params", "maximize", "differentiable", "capturable")  # what a training does not leave open
SWITCHES = ("foreach", "fused")  # true, false, or null for torch's choice
REFUSED = {
    "lbfgs": "it evaluates the loss several times in a step",
    "muon": "it takes matrices alone",
    "rprop": "it reads the learning rate in its first step alone and wants the gradients of all examples",
    "sparseadam": "it takes sparse gradients alone",
}


@cache
def kinds() -> Mapping[str, type["Optimizer"]]:
    """The classes of torch.optim by name, without those that cannot do what a training here needs."""
    from torch import optim  # when it is asked for: specs are read without torch

    found = {name.lower(): kind for name, kind in vars(optim).items() if inspect.isclass(kind) and issubclass(kind, optim.Optimizer)}
    return {name: kind for name, kind in sorted(found.items()) if name not in REFUSED and kind is not optim.Optimizer}


def names() -> tuple[str, ...]:
    """What may stand in `train.optimizer`."""
    return tuple(kinds())


@cache
def keywords(name: str) -> Mapping[str, Any]:
    """What the optimizer takes, with its defaults; nothing of an unknown one."""
    if name not in kinds():
        return {}
    return {key: found.default for key, found in inspect.signature(kinds()[name]).parameters.items() if key not in NEVER}


def refuse(name: Any) -> None:
    """Raise SpecError for an optimizer of torch that cannot do what a training here needs."""
    if isinstance(name, str) and name in REFUSED:
        raise not_allowed("optimizer", name, f"{' | '.join(names())}; {REFUSED[name]}")


def wrong_settings(name: str, settings: Mapping[str, Any]) -> Iterator[SpecError]:
    """An error for each setting that the optimizer does not take, or that is a field of the training."""
    taken = {key: default for key, default in keywords(name).items() if key not in FIELDS}
    for key, value in settings.items():
        field = f"settings.{key}"
        if key in FIELDS and key in keywords(name):
            yield not_allowed(field, value, f"nothing here; the field {key} beside settings says it")
        elif key not in taken:
            yield unknown_name(field, key, taken)
        elif not isinstance(value, bool) and (isinstance(taken[key], bool) or (key in SWITCHES and value is not None)):
            yield not_allowed(field, value, "true | false")
