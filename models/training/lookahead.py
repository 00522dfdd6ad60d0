"""Looking ahead: a short training of all weights or some before the cut, rewound afterwards. Its cost counts as scoring."""

from itertools import count

from torch import nn

from autosparse.models.training.loop import batches
from autosparse.models.training.step import train_step
from autosparse.models.training.trainer import Trainer


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
