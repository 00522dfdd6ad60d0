"""The optimizer that a training names, made."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from autosparse.models.errors import SpecError
from autosparse.models.specs import optimizers
from autosparse.models.specs.training import TrainSpec


def make_optimizer(spec: TrainSpec, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of the spec over the parameters. Raises SpecError for settings that torch refuses.

    SGD is fused: decay, momentum and gradient of a masked weight are all zero, so it leaves it at exactly zero.
    """
    kind: Any = optimizers.kinds()[spec.optimizer]
    taken = optimizers.keywords(spec.optimizer)
    given: dict[str, Any] = {name: getattr(spec, name) for name in optimizers.FIELDS if name in taken}
    given |= {"fused": True} if spec.optimizer == optimizers.SGD else {}
    own = {name: tuple(value) if isinstance(value, list) else value for name, value in spec.settings.items()}
    try:
        return kind(list(parameters), **given | own)
    except (ValueError, TypeError, RuntimeError) as error:
        allowed = f"what torch.optim.{kind.__name__} takes ({' '.join(str(error).split())})"
        raise SpecError(f"train.settings: {spec.settings} is not allowed; allowed: {allowed}") from None
