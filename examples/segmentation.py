"""A segmentation network with its own loss: pruned before it is trained, held while it trains, made smaller. Needs torch alone."""

import torch
from torch import Tensor, nn

import autosparse


class Segmenter(nn.Module):
    """Down twice, up twice, with a skip connection: a mask of logits for each pixel."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU())
        self.up = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(2 * width, width, 3, padding=1), nn.ReLU())
        self.out = nn.Conv2d(2 * width, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.stem(images)
        return self.out(torch.cat([fine, self.up(self.deep(self.down(fine)))], dim=1))


def circles(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy images (n, 1, 24, 24) of one bright disc each, and where it is (the same shape, 0 or 1)."""
    stream = torch.Generator().manual_seed(seed)
    place = torch.arange(24.0)
    x, y = torch.randint(6, 18, (2, count, 1, 1), generator=stream)
    radius = torch.randint(3, 7, (count, 1, 1), generator=stream)
    inside = ((place[None, :, None] - y) ** 2 + (place[None, None, :] - x) ** 2 < radius**2).float().unsqueeze(1)
    return inside + torch.randn(inside.shape, generator=stream), inside


def dice_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """1 - the overlap of the predicted and the true pixels."""
    images, inside = batch
    found = model(images).sigmoid()
    return 1 - 2 * (found * inside).sum() / (found.sum() + inside.sum())


torch.manual_seed(0)
model = Segmenter()
batches = [circles(16, seed) for seed in range(30)]
mask = autosparse.prune(model, batches[:4], method="snip", density=0.1, loss=dice_loss)
print(mask.summary(model, batches[0][0]))

optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=1e-4)
held = autosparse.hold(model, mask, optimizer, example=batches[0][0])
for _ in range(4):
    for batch in batches:
        optimizer.zero_grad()
        dice_loss(model, batch).backward()
        optimizer.step()

model.eval()
overlap = 1 - dice_loss(model, circles(64, seed=99)).item()
print(f"overlap {overlap:.3f} on 64 images, {held.violations()} pruned weights came back")

small = autosparse.compact(model, batches[0][0], mask)
before, after = (sum(param.numel() for param in one.parameters()) for one in (model, small))
difference = (small(batches[0][0]) - model(batches[0][0])).abs().max()
print(f"compacted: {before:,} -> {after:,} parameters, outputs differ by {difference:.1e}")
