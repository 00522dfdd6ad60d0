"""Wide residual networks (Zagoruyko and Komodakis 2016, arXiv 1605.07146)."""

from torch import Tensor, nn
from torch.nn import functional

from autosparse.models.networks.residual import convolution


class PreactivationBlock(nn.Module):
    """BatchNorm and ReLU before each of two 3x3 convolutions, and a shortcut around both (figure 1c).

    Where the shape changes, the shortcut is a 1x1 convolution of the activated input, without BatchNorm.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = convolution(in_channels, channels, 3, stride)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, 3)
        self.shortcut = None if stride == 1 and in_channels == channels else convolution(in_channels, channels, 1, stride)

    def forward(self, features: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H / stride, W / stride), both rounded up."""
        active = functional.relu(self.norm1(features))
        inner = self.conv2(functional.relu(self.norm2(self.conv1(active))))
        return inner + (features if self.shortcut is None else self.shortcut(active))


def wide_resnet(
    *, image_shape: tuple[int, int, int], num_classes: int, depth: int, widening: int, width: int = 16, stem_stride: int = 1
) -> nn.Module:
    """WRN-`depth`-`widening`: a stem of `width` channels, then three stages of 1, 2 and 4 times `width * widening` channels.

    Table 1 of the paper with n = (depth - 4) / 6 blocks per stage, without dropout. Deviation: a stem that may have a stride.
    Parameters of WRN-28-10 on 3-channel images and 10 classes: 36,479,194 (the paper's 36.5M).
    """
    layers: list[nn.Module] = [convolution(image_shape[0], width, 3, stem_stride)]
    features = width
    for stage in range(3):
        channels = width * widening * 2**stage
        for position in range((depth - 4) // 6):
            layers.append(PreactivationBlock(features, channels, stride=2 if stage and not position else 1))
            features = channels
    layers += [nn.BatchNorm2d(features), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(features, num_classes))
