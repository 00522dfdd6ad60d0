"""Looking ahead: a short training of all weights or some before the cut, rewound afterwards. Its cost counts as scoring."""

from dataclasses import replace
from itertools import count

from torch import nn

from autosparse.models.methods.contract import Parts
from autosparse.models.specs.json_object import NOTHING
from autosparse.models.specs.optimizers import SGD
from autosparse.models.specs.training import TrainSpec
from autosparse.models.training.loop import batches
from autosparse.models.training.optimizers import make_optimizer
from autosparse.models.training.short import MOMENTUM
from autosparse.models.training.step import train_step
from autosparse.models.training.trainer import Trainer


def by_sgd(training: TrainSpec, network: nn.Module) -> tuple[TrainSpec, Parts]:
    """The training that looks ahead for another: SGD, of which its learning rate is one, in the place of any other optimizer."""
    spec = training
    if training.optimizer != SGD:
        spec = replace(training, optimizer=SGD, settings=NOTHING, momentum=MOMENTUM, weight_decay=0.0)
    return spec, Parts(optimizer=make_optimizer(spec, network.parameters()))


def look_ahead(trainer: Trainer, *, steps: int, lr: float) -> nn.Module:
    """Train `trainer.network` for so many steps with a learning rate that rises linearly to `lr`; returns it.

    Raises DivergedError when the loss is NaN or infinite.
    """
    trainer.forward.train()
    for epoch in count():
        for batch in batches(trainer, epoch):
            if trainer.step == steps:
                return trainer.network
            train_step(trainer, batch, (lr * (trainer.step + 1) / steps, trainer.spec.momentum))
            trainer.step += 1
    raise AssertionError("unreachable")
