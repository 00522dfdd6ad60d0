"""Residual networks (He et al. 2016, arXiv 1512.03385): the two blocks, and the body that both families share."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


def convolution(in_channels: int, out_channels: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution of odd `size` that keeps height and width at stride 1; without bias, which a BatchNorm after it would cancel."""
    return nn.Conv2d(in_channels, out_channels, size, stride=stride, padding=size // 2, bias=False)


def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """The identity, or a 1x1 convolution with BatchNorm where the shape changes (option B of section 4.1)."""
    if stride == 1 and in_channels == out_channels:
        return nn.Sequential()
    return nn.Sequential(convolution(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each followed by BatchNorm, and a shortcut around both (figure 5, left)."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, channels, 3, stride)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, 3)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = shortcut(in_channels, channels, stride)

    def forward(self, features: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H / stride, W / stride), both rounded up."""
        inner = functional.relu(self.norm1(self.conv1(features)))
        return functional.relu(self.norm2(self.conv2(inner)) + self.shortcut(features))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, the last with four times the channels, and a shortcut around them (figure 5, right).

    Deviation: the stride is that of the 3x3 convolution, not of the first 1x1 (known as ResNet v1.5); the counts are the same.
    """

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = convolution(in_channels, channels, 1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, 3, stride)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv3 = convolution(channels, out_channels, 1)
        self.norm3 = nn.BatchNorm2d(out_channels)
        self.shortcut = shortcut(in_channels, out_channels, stride)

    def forward(self, features: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, 4 * channels, H / stride, W / stride), both rounded up."""
        inner = functional.relu(self.norm1(self.conv1(features)))
        inner = functional.relu(self.norm2(self.conv2(inner)))
        return functional.relu(self.norm3(self.conv3(inner)) + self.shortcut(features))


class ResNet(nn.Module):
    """A 3x3 stem without pooling, stages of blocks, the mean over all positions, one linear layer.

    Stage i has `stages[i]` blocks of `width * 2 ** i` channels (times the block's expansion); the first block of every stage
    but the first has stride 2.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        stages: Sequence[int],
        *,
        in_channels: int,
        num_classes: int,
        width: int,
        stem_stride: int,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(convolution(in_channels, width, 3, stem_stride), nn.BatchNorm2d(width), nn.ReLU())
        self.stages = nn.Sequential()
        features = width
        for index, count in enumerate(stages):
            stage = nn.Sequential()
            for position in range(count):
                channels = width * 2**index
                stage.append(block(features, channels, stride=2 if index and not position else 1))
                features = channels * block.expansion
            self.stages.append(stage)
        self.head = nn.Linear(features, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, H, W) of any height and width -> (N, num_classes)."""
        return self.head(self.stages(self.stem(images)).mean((2, 3)))
