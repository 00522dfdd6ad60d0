"""The default scorer: a small perceptron over normalised features."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from autosparse.models import seeding
from autosparse.models.features import FEATURE_NAMES

RAW_COLUMNS = 2  # raw weight and gradient change their scale with the network and the data set
SPREADS = 6.0  # inputs are held within so many standard deviations: gradients have heavy tails


class MlpScorer(nn.Module):
    """Features (n, F) -> scores (n,), higher = keep: linear layers with ReLU on columns of mean 0 and spread 1.

    `hidden` are the widths between input and output. The two raw columns are left out. Columns that never vary in the training
    data are ignored, since a weight behind them would stay at its random start.
    """

    kind: ClassVar[str] = "mlp"
    chunk_rows: ClassVar[int] = 32_768
    mean: Tensor
    scale: Tensor

    def __init__(self, *, hidden: tuple[int, ...] = (32, 32), seed: int = 0) -> None:
        super().__init__()
        self.hidden = tuple(hidden)
        columns = len(FEATURE_NAMES) - RAW_COLUMNS
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))
        self.body = nn.Sequential()
        with seeding.scoped(seed, "scorer", self.kind):
            for before, after in zip((columns, *self.hidden), self.hidden, strict=False):
                self.body.extend((nn.Linear(before, after), nn.ReLU()))
            self.body.append(nn.Linear((columns, *self.hidden)[-1], 1))

    @property
    def fields(self) -> dict[str, Any]:
        """What rebuilds the module, beside its state."""
        return {"hidden": list(self.hidden)}

    def forward(self, features: Tensor) -> Tensor:
        """Scores of n weights from their features (n, F)."""
        columns = (features[:, RAW_COLUMNS:] - self.mean) * self.scale
        return self.body(columns.clamp(-SPREADS, SPREADS)).squeeze(1)

    def absorb(self, batches: Iterable[tuple[Tensor, Tensor]], all_sum: Callable[[Tensor], Tensor]) -> None:
        """Set the normaliser to the mean and spread of each column over the training rows."""
        moments = torch.zeros(3, len(self.mean), dtype=torch.float64, device=self.mean.device)
        for features, _ in batches:
            columns = features[:, RAW_COLUMNS:].double()
            moments += torch.stack((torch.ones_like(columns).sum(0), columns.sum(0), columns.square().sum(0)))
        rows, total, squares = all_sum(moments)
        mean = total / rows
        spread = (squares / rows - mean.square()).clamp(min=0).sqrt()
        varies = spread > 1e-6 * mean.abs()  # else it is rounding
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(varies, 1 / spread, 0.0))
