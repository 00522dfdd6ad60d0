"""The scorer of the AutoS paper (arXiv:2408.14757): two scalars lifted to an image that a ResNet-18 looks at."""

from typing import Any, ClassVar

from torch import Tensor, nn

from autosparse.models import seeding
from autosparse.models.networks.initialization import initialize
from autosparse.models.networks.resnet_imagenet import resnet_imagenet

IMAGE = (3, 32, 32)


class ResNetScorer(nn.Module):
    """Features (n, F) -> scores (n,), higher = keep, from raw weight and gradient alone.

    Linear 2-64, BatchNorm, ReLU, Linear 64-3072, BatchNorm, ReLU, an image of 3x32x32, a CIFAR ResNet-18 with one output, as in
    the authors' public code. Costs 0.556 GMAC per weight at the paper's `width` of 64.
    """

    kind: ClassVar[str] = "resnet18"
    chunk_rows: ClassVar[int] = 512  # a row occupies about 1 MB in the first stage

    def __init__(self, *, width: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.width = width
        pixels = IMAGE[0] * IMAGE[1] * IMAGE[2]
        with seeding.scoped(seed, "scorer", self.kind):
            self.lift = nn.Sequential(
                nn.Linear(2, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, pixels), nn.BatchNorm1d(pixels), nn.ReLU()
            )
        with seeding.scoped(seed, "init"):
            self.body = resnet_imagenet(image_shape=IMAGE, num_classes=1, depth=18, width=width)
            initialize(self.body, "kaiming_out")

    @property
    def fields(self) -> dict[str, Any]:
        """What rebuilds the module, beside its state."""
        return {"width": self.width}

    def forward(self, features: Tensor) -> Tensor:
        """Scores of n weights from their features (n, F)."""
        return self.body(self.lift(features[:, :2]).unflatten(1, IMAGE)).squeeze(1)
