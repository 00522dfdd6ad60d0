"""The ResNets for CIFAR: ResNet-8, 20, 32 and 56."""

from torch import nn

from autosparse.models.networks.residual import BasicBlock, ResNet


def resnet_cifar(*, image_shape: tuple[int, int, int], num_classes: int, blocks: int, width: int = 16, stem_stride: int = 1) -> nn.Module:
    """The network of `6 * blocks + 2` layers: three stages of `blocks` basic blocks, of `width`, 2 and 4 times `width` channels.

    He et al. 2016, arXiv 1512.03385, section 4.2. Deviations: 1x1 convolutions with BatchNorm as shortcuts at the two places where
    the shape changes (option B) instead of padding with zeros (option A); a stem that may have a stride.

    Parameters on 3-channel images and 10 classes, in brackets those with option A and the paper's table 6: ResNet-20 272,474
    (269,722; 0.27M), ResNet-32 466,906 (464,154; 0.46M), ResNet-56 855,770 (853,018; 0.85M). ResNet-8, which is not in the paper,
    has 78,042; of width 32 it has 308,650, of them 307,296 convolution and linear weights.
    """
    return ResNet(BasicBlock, [blocks] * 3, in_channels=image_shape[0], num_classes=num_classes, width=width, stem_stride=stem_stride)
