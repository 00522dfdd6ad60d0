"""LeNet-300-100, the small multilayer perceptron of the pruning literature."""

from math import prod

from torch import nn


def lenet_300_100(*, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Two hidden layers of 300 and 100 units on the flattened image of any shape (LeCun et al. 1998, "Gradient-based learning
    applied to document recognition", section III.C).

    Deviation: ReLU instead of the scaled tanh, as pruning papers have it. Parameters on 1x28x28 images and 10 classes: 266,610, of
    them 266,200 weights.
    """
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(prod(image_shape), 300),
        nn.ReLU(),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Linear(100, num_classes),
    )
