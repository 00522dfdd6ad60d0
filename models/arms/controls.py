"""Controls: the same arm with one thing about it spoiled. What a spoiled arm still reaches was not due to what was spoiled.

Frankle et al. 2021 (arXiv 2009.08576) for `shuffle`, `reinit` and `invert`; Su et al. 2020 (arXiv 2009.11094) for the corrupted
data. docs/controls.md says when a method passes.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from autosparse.models import seeding
from autosparse.models.gradients import Batches
from autosparse.models.masks.mask import Mask, Scores, prunable


class Control(NamedTuple):
    """What a control changes, in the order in which an arm comes about; what is None stays as it is.

    `batches`: the data that scores are taken on. `scores`: the scores before the method's own allocator cuts them.
    `mask`: the finished mask. `init_seed`: from an arm's seed to that of its initial weights, under the mask of the old ones.
    `weights`: the initial weights under the finished mask, in place.
    """

    batches: Callable[[Batches, torch.Generator], Batches] | None = None
    scores: Callable[[Scores], Scores] | None = None
    mask: Callable[[Mask, torch.Generator], Mask] | None = None
    init_seed: Callable[[int], int] | None = None
    weights: Callable[[nn.Module, Mask], None] | None = None


def shuffle(mask: Mask, generator: torch.Generator) -> Mask:
    """The mask with its entries permuted within each layer: the counts per layer stay, which weights they are does not.

    A uniformly random permutation makes every mask with these counts equally likely, whatever it started from. So this is also
    the random mask of equal layer densities, and there is no second control of that name.
    """
    shuffled = {}
    for name, keep in mask.items():
        order = torch.randperm(keep.numel(), generator=generator).to(keep.device)
        shuffled[name] = keep.reshape(-1)[order].view(keep.shape)
    return shuffled


def invert(scores: Scores) -> Scores:
    """Scores with the sign turned: the same allocator then keeps as many weights, the worst instead of the best."""
    return {name: -score for name, score in scores.items()}


def reinit_seed(seed: int) -> int:
    """The seed of the weights that an arm of `seed` gets instead of its own; a stream of its own, not a neighbouring seed."""
    return seeding.derive(seed, "reinit")


@torch.no_grad()
def rescale(network: nn.Module, mask: Mask) -> None:
    """Each layer's kept weights times one number (in place), after which their root mean square is that of the whole layer at init.

    Signs and order stay, so what a method gains by keeping small or large weights for their size alone is taken from it. Layers
    that keep nothing, or nothing but zeros, stay as they are; weights that are not kept are not touched.
    """
    for name, weight in prunable(network).items():
        if name in mask:
            keep = mask[name].to(weight.device)
            whole, left = (values.double().square().mean().sqrt() for values in (weight, weight[keep]))
            if left > 0:
                weight[keep] *= (whole / left).to(weight.dtype)


def random_labels(batches: Batches, generator: torch.Generator) -> Batches:
    """The same images with all labels permuted, across batches too: the classes stay as frequent as they were.

    By chance an image of a data set with k balanced classes keeps its label with probability 1/k.
    """
    labels = torch.cat([part for _, part in batches])
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    parts = labels[order].split([len(part) for _, part in batches])
    return [(images, part) for (images, _), part in zip(batches, parts, strict=True)]


def random_pixels(batches: Batches, generator: torch.Generator) -> Batches:
    """The same labels with images of independent normal noise, of each batch's mean and standard deviation per channel."""
    return [(_noise(images, generator), labels) for images, labels in batches]


def _noise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Noise like `images` (n, channels, ...), in their memory format."""
    others = [axis for axis in range(images.dim()) if axis != 1]
    mean, std = images.mean(others, keepdim=True), images.std(others, correction=0, keepdim=True)
    drawn = torch.randn(images.shape, generator=generator, dtype=images.dtype).to(images.device)
    return torch.empty_like(images).copy_(drawn * std + mean)


CONTROLS: dict[str, Control] = {
    "shuffle": Control(mask=shuffle),
    "reinit": Control(init_seed=reinit_seed),
    "rescale": Control(weights=rescale),
    "invert": Control(scores=invert),
    "random_labels": Control(batches=random_labels),
    "random_pixels": Control(batches=random_pixels),
}
