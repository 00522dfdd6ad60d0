"""A mixer of image patches whose blocks can be trained by losses of their own, per patch and group of channels."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from autosparse.models.errors import not_allowed

CHANNELS_PER_GROUP = 16
LAYERS = 3  # of a block: patches mix, channels mix, channels mix within their group


class MixerBlock(nn.Module):
    """(n, patches, channels in) to (n, patches, width); each of its three linear layers stands between two layer norms without
    parameters, which are taken within each group from the second norm of the channel layer on, so that what a patch and a group
    put out hangs on no other group's units."""

    def __init__(self, patches: int, channels: int, width: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.tokens = nn.Linear(patches, patches)
        self.channels = nn.Linear(channels, width)
        self.grouped = nn.Conv1d(width, width, 1, groups=groups)

    def preactivation(self, layer: int, inputs: Tensor) -> Tensor:
        """What layer 0, 1 or 2 makes of its inputs (n, patches, channels): norm, linear, norm."""
        if layer == 0:
            return _norm(self.tokens(_norm(inputs).mT).mT)
        if layer == 1:
            return self._norm_groups(self.channels(_norm(inputs)))
        return self._norm_groups(self.grouped(self._norm_groups(inputs).mT).mT)

    def trace(self, patches: Tensor, noise: Sequence[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """The block's output and the inputs of its three layers; `noise` is added to each layer's preactivation."""
        inputs, now = [], patches
        for layer in range(LAYERS):
            inputs.append(now)
            now = self.preactivation(layer, now)
            if noise is not None:
                now = now + noise[layer]
            if layer < LAYERS - 1:
                now = functional.relu(now)
        return (patches + now if patches.shape == now.shape else now), inputs

    def forward(self, patches: Tensor) -> Tensor:
        return self.trace(patches)[0]

    def _norm_groups(self, values: Tensor) -> Tensor:
        return _norm(values.unflatten(2, (self.groups, -1))).flatten(2)


class LocalMixer(nn.Module):
    """Blocks over a grid of patches and a classifier on the mean over patches."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, width: int, blocks: int, grid: int, groups: int) -> None:
        super().__init__()
        channels, *sides = image_shape
        self.grid, self.sides = grid, [-(-side // grid) for side in sides]
        pixels = channels * self.sides[0] * self.sides[1]
        self.blocks = nn.ModuleList(MixerBlock(grid**2, width if block else pixels, width, groups) for block in range(blocks))
        self.head = nn.Linear(width, num_classes)

    def patches(self, images: Tensor) -> Tensor:
        """Images (n, C, H, W), padded by zeros at the right and the bottom, to patches (n, grid * grid, C * pixels)."""
        down, right = (self.grid * side - size for side, size in zip(self.sides, images.shape[2:], strict=True))
        tall, wide = self.sides
        cells = functional.pad(images, (0, right, 0, down)).unfold(2, tall, tall).unfold(3, wide, wide)
        return cells.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, C, H, W) to outputs (n, num_classes)."""
        now = self.patches(images)
        for block in self.blocks:
            now = block(now)
        return self.head(now.mean(1))


def local_mixer(
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    width: int = 128,
    blocks: int = 2,
    grid: int = 4,
    groups: int | None = None,
) -> nn.Module:
    """A mixer without attention on `grid` x `grid` patches, whose last linear layer of each block is split into groups of
    channels (Ren et al. 2023, "Scaling forward gradient with local losses", table 2, in miniature: theirs for CIFAR-10 has 4 blocks,
    8 x 8 patches, 512 channels and 16 groups).

    `groups` None = one for every 16 channels, or the next smaller number that divides `width`. Deviations, reconstructions where
    the paper leaves it open: layer norms have no parameters, those behind a split into groups are taken within the group, the third
    layer has no ReLU before the residual sum, and the first block has no residual where the numbers of channels differ. Parameters
    on 3x32x32 images and 10 classes: 47,402, of them 46,848 weights. Raises SpecError for a width below 2.
    """
    if width < 2:
        raise not_allowed("network.width", width, ">= 2, because of the layer norms")
    count = groups or next(number for number in range(max(1, width // CHANNELS_PER_GROUP), 0, -1) if width % number == 0)
    return LocalMixer(image_shape, num_classes, width, blocks, grid, count)


def _norm(values: Tensor) -> Tensor:
    return functional.layer_norm(values, values.shape[-1:])
