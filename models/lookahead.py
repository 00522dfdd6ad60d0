"""Looking ahead: a short training of all weights or some before the cut, rewound afterwards. Its cost counts as scoring."""

from itertools import count

from torch import nn

from models.trainer import Trainer
from models.training import batches
from models.training_step import train_step


def look_ahead(trainer: Trainer, *, steps: int, lr: float) -> nn.Module:
    """Train `trainer.network` for so many steps with a learning rate that rises linearly to `lr`; returns it.

    Raises DivergedError when the loss is NaN or infinite.
    """
    trainer.forward.train()
    for epoch in count():
        for images, labels in batches(trainer, epoch):
            if trainer.step == steps:
                return trainer.network
            train_step(trainer, images, labels, (lr * (trainer.step + 1) / steps, trainer.spec.momentum))
            trainer.step += 1
    raise AssertionError("unreachable")
