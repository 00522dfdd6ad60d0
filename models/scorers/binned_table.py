"""The baseline every network scorer is compared with: the mean label in bins of weight and gradient.

No function of a weight's bins has a smaller mean squared error on the rows the table was made from; functions of magnitude,
gradient and their product are among them.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from autosparse.models.errors import not_allowed
from autosparse.models.features import FEATURE_NAMES

WEIGHT, GROWTH, LINEAR = (FEATURE_NAMES.index(name) for name in ("weight_scaled", "growth_gradient", "linear"))
EDGE_ROWS = 2**18  # rows whose quantiles become the edges: the first ones, which minibatches have mixed


class BinnedTable(nn.Module):
    """Features (n, F) -> scores (n,): the mean label target of the row's bin.

    `bins` quantiles of the scaled weight's magnitude times `bins` of the gradient along the sign of the weight, for convolutions
    and linear layers apart. Where a kind of layer has fewer than `rows_per_bin` rows per bin on average, two by two bins are merged
    until it has (else a table of few rows knows them by heart). A bin without a row answers with the mean over all gradients, then
    over its kind of layer, then over everything.
    """

    kind: ClassVar[str] = "table"
    chunk_rows: ClassVar[int] = 65_536
    edges: Tensor
    means: Tensor

    def __init__(self, *, bins: int = 64, rows_per_bin: int = 64) -> None:
        super().__init__()
        if bins < 2 or bins & (bins - 1):
            raise not_allowed("bins", bins, "a power of two, at least 2")
        self.bins = bins
        self.rows_per_bin = rows_per_bin
        self.register_buffer("edges", torch.zeros(2, bins - 1))
        self.register_buffer("means", torch.zeros(2 * bins * bins))

    @property
    def fields(self) -> dict[str, Any]:
        """What rebuilds the module, beside its state."""
        return {"bins": self.bins, "rows_per_bin": self.rows_per_bin}

    def forward(self, features: Tensor) -> Tensor:
        """Scores of n weights from their features (n, F)."""
        return self.means[self._bin(features)]

    def absorb(self, batches: Iterable[tuple[Tensor, Tensor]], all_sum: Callable[[Tensor], Tensor]) -> float:
        """Fit the table in one pass over the training rows; returns its mean squared error on them."""
        batches = iter(batches)
        first = list(_take(batches, EDGE_ROWS))
        self._set_edges(torch.cat([features for features, _ in first]), all_sum)
        sums, counts = torch.zeros(2, len(self.means), dtype=torch.float64, device=self.means.device)
        squares = torch.zeros((), dtype=torch.float64, device=self.means.device)
        for features, target in chain(first, batches):
            place, target = self._bin(features), target.double()
            sums += torch.bincount(place, weights=target, minlength=len(sums))
            counts += torch.bincount(place, minlength=len(counts))
            squares += target.square().sum()
        sums, counts, squares = all_sum(sums), all_sum(counts), all_sum(squares)
        self.means.copy_(self._means(sums, counts))
        # sum over rows of (y - mean of the bin)^2 = sum of y^2 - 2 mean sum of y + mean^2 count, bin by bin
        error = squares - (2 * self.means * sums - self.means.square() * counts).sum()
        return float(error.clamp(min=0) / counts.sum())

    def _bin(self, features: Tensor) -> Tensor:
        weight = torch.bucketize(features[:, WEIGHT].abs(), self.edges[0])
        growth = torch.bucketize(features[:, GROWTH].contiguous(), self.edges[1])
        return ((features[:, LINEAR] > 0.5) * self.bins + weight) * self.bins + growth

    def _set_edges(self, features: Tensor, all_sum: Callable[[Tensor], Tensor]) -> None:
        columns = torch.stack((features[:, WEIGHT].abs(), features[:, GROWTH]))
        shares = torch.linspace(0, 1, self.bins + 1, device=columns.device)[1:-1]
        edges = columns.quantile(shares, dim=1).T
        self.edges.copy_(all_sum(edges.contiguous()) / all_sum(torch.ones((), device=columns.device)))

    def _means(self, sums: Tensor, counts: Tensor) -> Tensor:
        shape = (2, self.bins, self.bins)
        everything = sums.sum() / counts.sum()
        return torch.stack([self._of_kind(*pair, everything) for pair in zip(sums.view(shape), counts.view(shape), strict=True)]).flatten()

    def _of_kind(self, sums: Tensor, counts: Tensor, means: Tensor) -> Tensor:
        """Means (bins, bins) of one kind of layer: from coarse to fine, each where there are rows."""
        merged = 1
        while merged < self.bins and counts.sum() < self.rows_per_bin * (self.bins // merged) ** 2:
            merged *= 2
        sums, counts = (values.unflatten(1, (-1, merged)).unflatten(0, (-1, merged)).sum((1, 3)) for values in (sums, counts))
        for total, count in ((sums.sum(), counts.sum()), (sums.sum(1, keepdim=True), counts.sum(1, keepdim=True)), (sums, counts)):
            means = torch.where(count > 0, total / count, means)
        return means.repeat_interleave(merged, 0).repeat_interleave(merged, 1)


def _take(batches: Iterator[tuple[Tensor, Tensor]], rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    while rows > 0 and (batch := next(batches, None)):
        rows -= len(batch[1])
        yield batch
