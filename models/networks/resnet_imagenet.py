"""ResNet-18, 34 and 50: the ImageNet networks with a stem for small images."""

from torch import nn

from autosparse.models.networks.residual import BasicBlock, Bottleneck, ResNet

STAGES: dict[int, tuple[type[BasicBlock] | type[Bottleneck], list[int]]] = {
    18: (BasicBlock, [2, 2, 2, 2]),
    34: (BasicBlock, [3, 4, 6, 3]),
    50: (Bottleneck, [3, 4, 6, 3]),
}


def resnet_imagenet(*, image_shape: tuple[int, int, int], num_classes: int, depth: int, width: int = 64, stem_stride: int = 1) -> nn.Module:
    """The network of `depth` layers: four stages of `width`, 2, 4 and 8 times `width` channels (four times that for depth 50).

    He et al. 2016, arXiv 1512.03385, table 1. Deviations: a 3x3 stem of stride `stem_stride` without max-pooling instead of 7x7 of
    stride 2 with it, as is usual for CIFAR and TinyImageNet; the stride of a bottleneck is in its 3x3 convolution.

    Parameters on 3-channel images and 10 classes: ResNet-18 11,173,962, of them 11,164,352 convolution and linear weights;
    ResNet-34 21,282,122; ResNet-50 23,520,842.
    """
    block, stages = STAGES[depth]
    return ResNet(block, stages, in_channels=image_shape[0], num_classes=num_classes, width=width, stem_stride=stem_stride)
