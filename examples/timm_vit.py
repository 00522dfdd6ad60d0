"""A vision transformer of timm, pruned before it is trained, held in one's own loop, and made smaller. Needs timm and scikit-learn."""

import timm
import torch
from sklearn.datasets import load_digits
from torch.nn import functional

import autosparse

torch.manual_seed(0)
pixels, classes = load_digits(return_X_y=True)
images, labels = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(classes)
batches = [(images[start : start + 64], labels[start : start + 64]) for start in range(0, 1280, 64)]

model = timm.create_model(
    "vit_tiny_patch16_224", img_size=8, patch_size=4, in_chans=1, num_classes=10, depth=2, embed_dim=48, num_heads=3, global_pool="avg"
)
mask = autosparse.prune(model, batches, method="snip", density=0.1)
print(mask.summary(model, images))

optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.05)
held = autosparse.hold(model, mask, optimizer, example=images[:1])
for _ in range(12):
    for inputs, targets in batches:
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()

model.eval()
right = (model(images[1280:]).argmax(1) == labels[1280:]).float().mean()
print(f"accuracy {right:.3f} on {len(images) - 1280} digits, {held.violations()} pruned weights came back")

small = autosparse.compact(model, images[:1], mask)
before, after = (sum(param.numel() for param in one.parameters()) for one in (model, small))
difference = (small(images[:8]) - model(images[:8])).abs().max()
print(f"compacted: {before:,} -> {after:,} parameters, outputs differ by {difference:.1e}")
