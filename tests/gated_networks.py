"""Small networks, images and trainings for the tests of methods with gates."""

from typing import Any

import torch
from torch import Tensor, nn

from autosparse.models.methods.contract import Setup
from autosparse.models.methods.registry import METHODS, parse
from autosparse.models.networks.resnet_cifar import resnet_cifar
from autosparse.models.networks.wide_resnet import wide_resnet
from autosparse.models.seeding import scoped
from autosparse.models.specs.run_specs import DataSpec, JobSpec, TrainSpec
from autosparse.models.training.images import ImageSet
from autosparse.models.training.trainer import Trainer

SHAPE, CLASSES = (1, 8, 8), 3
SPEC = TrainSpec(epochs=3, batch_size=8, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule="onecycle")
DATA = DataSpec(name="bars", mean=(0.5,), std=(0.25,), augment="shift_flip", pad=1)


def network(kind: str) -> nn.Module:
    """`resnet` (8 layers, width 4), `vgg` (BatchNorms, pooling, flattened), `plain` (biases, no BatchNorm) or `wide`
    (preactivation), with random BatchNorm weights and statistics."""
    with scoped(0, kind):
        made = _build(kind)
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight.data, module.running_var):
                    assert tensor is not None
                    tensor.uniform_(0.5, 2)
                for tensor in (module.bias.data, module.running_mean):
                    assert tensor is not None
                    tensor.normal_()
    return made


def _build(kind: str) -> nn.Module:
    match kind:
        case "resnet":
            return resnet_cifar(image_shape=SHAPE, num_classes=CLASSES, blocks=1, width=4)
        case "wide":
            return wide_resnet(image_shape=SHAPE, num_classes=CLASSES, depth=10, widening=1, width=4)
        case "vgg":
            first = [nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)]
            second = [nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.GELU(), nn.MaxPool2d(2)]
            return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(5 * 4, 7), nn.ReLU(), nn.Linear(7, CLASSES))
        case _:
            return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, CLASSES))


def setup_for(module: nn.Module, *, density: float | None = None, seed: int = 5) -> Setup:
    """The setup of a training of `SPEC` with five steps an epoch."""
    return Setup(network=module, train=SPEC, density=density, head=True, image_shape=SHAPE, steps_per_epoch=5, seed=seed)


def trainer(method: str, *, kind: str = "resnet", density: float | None = None, channels_last: bool = False) -> Trainer:
    """A training of 15 steps on 40 images of three kinds of bars, under `method(field=value,...)`."""
    name, (settings,) = parse(method)
    module = network(kind)
    if channels_last:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    setup = setup_for(module, density=density)
    assert METHODS[name].refuses(setup, settings) is None
    parts = METHODS[name].parts(setup, settings)
    every: dict[str, Any] = {"spec": SPEC, "data": DATA, "job": JobSpec(), "train": _images(40), "test": _images(12), "seed": 5}
    return Trainer(network=module, forward=module, parts=parts, **every)


def outputs(module: nn.Module) -> Tensor:
    """What a network in eval mode says of eight fixed images."""
    images = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(3))
    module.eval()
    with torch.no_grad():
        return module(images)


def _images(count: int) -> ImageSet:
    images = torch.randint(0, 120, (count, *SHAPE), generator=torch.Generator().manual_seed(count), dtype=torch.uint8)
    labels = torch.arange(count) % CLASSES
    for image, label in zip(images, labels.tolist(), strict=True):
        image[0, 2 * label + 1] += 100
    return ImageSet(images, labels)
