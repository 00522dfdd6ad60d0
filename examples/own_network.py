"""A network of your own, for `autosparse prune examples.own_network:build` or as a target of the fan-out."""

from torch import nn


def build(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """A small convolutional network for images of any size."""
    channels = image_shape[0]
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, stride=2, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, num_classes),
    )
