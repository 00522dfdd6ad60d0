"""VGG-11, 16 and 19 with BatchNorm, for small images."""

from torch import nn

from autosparse.models.networks.residual import convolution

# 3x3 convolutions in each of the five stages (table 1: columns A, D and E)
STAGES = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
MULTIPLES = (1, 2, 4, 8, 8)  # channels of the stages, of `width`


def vgg_cifar(*, image_shape: tuple[int, int, int], num_classes: int, depth: int, width: int = 64) -> nn.Module:
    """VGG-`depth`: five stages of 3x3 convolutions with 2x2 max-pooling after each, `width` to 8 times `width` channels.

    Simonyan and Zisserman 2015, arXiv 1409.1556, table 1. Deviations, as is usual for CIFAR: BatchNorm after each convolution, which
    therefore has no bias; the mean over all positions and one linear layer instead of three and dropout. Pooling rounds sizes
    up, so that any image fits: a side of 2 ** k pixels is halved as in the paper until it is 1 and then stays, a side of 7 becomes 4.

    Parameters on 3-channel images and 10 classes: VGG-11 9,228,362; VGG-16 14,724,042; VGG-19 20,035,018 (with the biases of the
    convolutions, as some definitions have them, 2,752, 4,224 and 5,504 more).
    """
    layers: list[nn.Module] = []
    features = image_shape[0]
    for count, multiple in zip(STAGES[depth], MULTIPLES, strict=True):
        for _ in range(count):
            layers += [convolution(features, width * multiple, 3), nn.BatchNorm2d(width * multiple), nn.ReLU()]
            features = width * multiple
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, num_classes))
