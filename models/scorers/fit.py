"""Fitting a scorer to rows that stream past, alone or as one rank of a process group."""

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from autosparse.models.errors import DataError, DivergedError

Rows = tuple[Tensor, Tensor]  # features (n, F) float32, label target (n,) float32


def minibatches(features: Tensor, target: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Rows]:
    """The rows of a block in random order, in the fewest parts of at most `batch_size` rows, whose sizes differ by one at most.

    Equal parts rather than a short last one: BatchNorm in a scorer cannot train on a single row.
    """
    order = torch.randperm(len(target), generator=generator).to(target.device)
    for rows in order.tensor_split(math.ceil(len(order) / batch_size)) if len(order) else ():
        yield features[rows], target[rows]


def fit_scorer(
    scorer: nn.Module,
    batches: Callable[[int], Iterable[Rows]],
    *,
    epochs: int,
    lr: float,
    forward: nn.Module | None = None,
    all_sum: Callable[[Tensor], Tensor] = lambda values: values,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> list[float]:
    """Fit `scorer` by mean squared error and return the loss per row of each epoch.

    `batches(epoch)` gives the rows of an epoch, on the scorer's device; every rank of a group must yield equally many batches.
    A scorer with an `absorb(batches, all_sum)` first sees the rows of epoch 0 once; what it returns is None, or the loss of a
    closed-form fit that leaves nothing to descend on. Otherwise Adam, with a cosine from `lr` towards 0 over the epochs.
    `forward` is the scorer's DDP or compiled wrapper, `all_sum` adds a tensor up over the ranks; `on_epoch(epoch, loss)` is
    called after each epoch. Leaves the scorer in eval mode. Raises DivergedError when the loss of an epoch is NaN or infinite,
    DataError when there are no rows.
    """
    losses: list[float] = []

    def finish(loss: float) -> None:
        if not math.isfinite(loss):
            raise DivergedError(f"scorer.loss: {loss} in epoch {len(losses)} is not allowed; allowed: finite (try a smaller scorer.lr)")
        losses.append(loss)
        on_epoch(len(losses) - 1, loss)

    absorb = getattr(scorer, "absorb", None)
    closed_form = absorb(_some(batches(0)), all_sum) if absorb else None
    if closed_form is not None:
        finish(closed_form)
    else:
        optimizer = torch.optim.Adam(scorer.parameters(), lr=lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
        for epoch in range(epochs):
            finish(_descend(forward or scorer, optimizer, _some(batches(epoch)), all_sum))
            schedule.step()
    scorer.eval()
    return losses


def _descend(forward: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[Rows], all_sum: Callable[[Tensor], Tensor]) -> float:
    """One epoch; the mean of the squared error over rows, not over batches."""
    total, rows = torch.zeros((), dtype=torch.float64, device=next(forward.parameters()).device), 0
    forward.train()
    for features, target in batches:
        optimizer.zero_grad(set_to_none=True)
        loss = functional.mse_loss(forward(features), target)
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(target)
        rows += len(target)
    return float(all_sum(total) / all_sum(torch.full_like(total, rows)))


def _some(batches: Iterable[Rows]) -> Iterator[Rows]:
    empty = True
    for batch in batches:
        empty = False
        yield batch
    if empty:
        raise DataError("scorer: 0 training rows are not allowed; allowed: at least one (scorer.holdout_seeds, scorer.holdout_layers)")
