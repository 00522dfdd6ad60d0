"""Loss and error of a network at any point of its parameter space."""

from collections.abc import Callable
from itertools import cycle

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from autosparse.models.errors import not_allowed
from autosparse.models.gradients import Batches, Loss, batch_statistics
from autosparse.models.masks.reparametrized import copied
from autosparse.models.networks.calls import logits_of
from autosparse.models.probes.batchnorm import reestimated
from autosparse.models.probes.vectors import unflatten

Measure = Callable[[Tensor], dict[str, float]]  # point (d,) -> named numbers, of which probes keep each


class Surface:
    """The landscape of one architecture on fixed batches.

    Works on a copy of the network, whose weights do not matter. `statistics` are the batches from which BatchNorm gets its
    statistics and on which paths are trained; the default is the measured `batches` themselves, which for test images means that
    the test images' statistics are used. Raises SpecError without a batch.
    """

    def __init__(self, network: nn.Module, batches: Batches, *, statistics: Batches | None = None, loss: Loss = cross_entropy) -> None:
        self._batches, self._statistics = batches, batches if statistics is None else statistics
        if not self._batches or not self._statistics:
            raise not_allowed("batches", 0, ">= 1")
        self._network, self._loss = copied(network).eval(), loss

    @torch.no_grad()
    def measure(self, vector: Tensor) -> dict[str, float]:
        """`loss` and `error` (in [0, 1]), means over all images, at `vector` (d,) with BatchNorm statistics taken anew."""
        params = unflatten(vector, self._network)
        state = params | reestimated(self._network, self._statistics, params)
        loss, wrong, count = 0.0, 0, 0
        for images, labels in self._batches:
            outputs = logits_of(functional_call(self._network, state, (images,)))
            loss += float(self._loss(outputs, labels)) * len(labels)
            wrong += int((outputs.argmax(1) != labels).sum())
            count += len(labels)
        return {"loss": loss / count, "error": wrong / count}

    def training_loss(self) -> Callable[[Tensor], Tensor]:
        """A function of a point, differentiable: the loss on the first batch, at its next call on the second, and so on, round and
        round; BatchNorm uses the statistics of the batch."""
        turns = cycle(self._statistics)
        buffers = {name: buffer.clone() for name, buffer in self._network.named_buffers()}

        def loss(vector: Tensor) -> Tensor:
            images, labels = next(turns)
            with batch_statistics(self._network):
                outputs = logits_of(functional_call(self._network, {**unflatten(vector, self._network), **buffers}, (images,)))
            return self._loss(outputs, labels)

        return loss
