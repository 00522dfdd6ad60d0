"""Prune one network at initialization with a fixed criterion: the core alone, no service and no file."""

import torch

from autosparse.models import seeding
from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.masks import mask as masks
from autosparse.models.networks.build import build_network
from autosparse.models.specs.run_specs import NetworkSpec

network = build_network(NetworkSpec(name="resnet20"), image_shape=(3, 32, 32), num_classes=10, seed=0)
stream = seeding.generator(0, "example")
batch = (torch.randn(64, 3, 32, 32, generator=stream), torch.randint(0, 10, (64,), generator=stream))

snip = CRITERIA["snip"]
scores = snip.score(network, [batch], stream, head=True, density=0.05)
mask = snip.allocate(scores, 0.05, floor=1)
masks.apply_(network, mask)

print(f"kept {masks.kept(mask):,} of {masks.total(mask):,} weights")
for name, density in masks.layer_densities(mask).items():
    print(f"{name:30} {density:.3f}")
