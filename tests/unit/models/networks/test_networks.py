"""Network definitions against the counts and shapes of their papers, and two blocks worked out on paper."""

import pytest
import torch
from torch import Tensor, nn

from autosparse.models import seeding
from autosparse.models.masks.mask import prunable
from autosparse.models.networks.build import build_network
from autosparse.models.networks.registry import NETWORKS
from autosparse.models.networks.residual import BasicBlock, Bottleneck
from autosparse.models.networks.wide_resnet import PreactivationBlock
from autosparse.models.specs.run_specs import NetworkSpec

CONVOLUTIONAL = sorted(set(NETWORKS) - {"lenet300-100", "row-lstm", "local-mixer"})
STRIDED = [name for name in CONVOLUTIONAL if not name.startswith("vgg")]
SMALL = [NetworkSpec(name=name, width=4) for name in [*CONVOLUTIONAL, "row-lstm", "local-mixer"]] + [NetworkSpec(name="lenet300-100")]


def build(spec: NetworkSpec | str, *, shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10, seed: int = 0) -> nn.Module:
    spec = NetworkSpec(name=spec) if isinstance(spec, str) else spec
    return build_network(spec, image_shape=shape, num_classes=classes, seed=seed)


def parameters(network: nn.Module) -> int:
    return sum(param.numel() for param in network.parameters())


def weights(network: nn.Module) -> int:
    return sum(param.numel() for param in prunable(network).values())


# On 3x32x32 images and 10 classes. Known elsewhere: 0.27M, 0.46M, 0.85M for ResNet-20, 32, 56 with option A (He et al., table 6),
# 2,752 less than here; 11.17M, 21.28M, 23.52M for ResNet-18, 34, 50 with a CIFAR stem; 36.5M for WRN-28-10; VGG-16 with biases in
# its convolutions, 4,224 more than here, 14,728,266.
@pytest.mark.parametrize(
    ("name", "all_parameters", "prunable_weights"),
    [
        ("lenet300-100", 953_010, 952_600),
        ("resnet8", 78_042, 77_360),
        ("resnet20", 272_474, 270_896),
        ("resnet32", 466_906, 464_432),
        ("resnet56", 855_770, 851_504),
        ("resnet18", 11_173_962, 11_164_352),
        ("resnet34", 21_282_122, 21_265_088),
        ("resnet50", 23_520_842, 23_467_712),
        ("vgg11", 9_228_362, 9_222_848),
        ("vgg16", 14_724_042, 14_715_584),
        ("vgg19", 20_035_018, 20_024_000),
        ("wideresnet28-10", 36_479_194, 36_461_232),
        ("row-lstm", 116_490, 115_968),
        ("local-mixer", 47_402, 46_848),
    ],
)
def test_parameter_counts(name: str, all_parameters: int, prunable_weights: int):
    network = build(name)
    assert (parameters(network), weights(network)) == (all_parameters, prunable_weights)


def test_every_registered_network_is_counted():
    (table,) = [mark for mark in test_parameter_counts.pytestmark if mark.name == "parametrize"]
    assert [row[0] for row in table.args[1]] == list(NETWORKS)


def test_lenet_on_mnist_has_266610_parameters():
    network = build("lenet300-100", shape=(1, 28, 28))
    assert (parameters(network), weights(network)) == (266_610, 784 * 300 + 300 * 100 + 100 * 10)


def test_the_scale_model_is_resnet8_of_width_32_with_two_shortcuts():
    network = build(NetworkSpec(name="resnet8", width=32, stem_stride=2))
    nine = 9  # positions of a 3x3 kernel
    assert {name: param.numel() for name, param in prunable(network).items()} == {
        "stem.0.weight": 3 * 32 * nine,
        "stages.0.0.conv1.weight": 32 * 32 * nine,
        "stages.0.0.conv2.weight": 32 * 32 * nine,
        "stages.1.0.conv1.weight": 32 * 64 * nine,
        "stages.1.0.conv2.weight": 64 * 64 * nine,
        "stages.1.0.shortcut.0.weight": 32 * 64,
        "stages.2.0.conv1.weight": 64 * 128 * nine,
        "stages.2.0.conv2.weight": 128 * 128 * nine,
        "stages.2.0.shortcut.0.weight": 64 * 128,
        "head.weight": 128 * 10,
    }
    assert (parameters(network), weights(network)) == (308_650, 307_296)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("spec", SMALL, ids=lambda spec: spec.name)
def test_one_output_per_class_for_any_image(spec: NetworkSpec, shape: tuple[int, int, int]):
    network = build(spec, shape=shape, classes=7)
    outputs = network(torch.randn(2, *shape, generator=seeding.generator(0)))
    assert outputs.shape == (2, 7)
    assert outputs.isfinite().all()
    assert not torch.equal(outputs[0], outputs[1])


def shapes_of(network: nn.Module, kind: type[nn.Module], image: tuple[int, int, int]) -> list[tuple[int, ...]]:
    seen: list[tuple[int, ...]] = []
    for module in network.modules():
        if isinstance(module, kind):
            module.register_forward_hook(lambda _module, _inputs, output: seen.append(tuple(output.shape[1:])))
    network.eval()(torch.zeros(1, *image))
    return seen


def test_stages_of_the_scale_model_halve_the_image():
    network = build(NetworkSpec(name="resnet8", width=32, stem_stride=2))
    assert shapes_of(network, BasicBlock, (3, 32, 32)) == [(32, 16, 16), (64, 8, 8), (128, 4, 4)]


def test_stages_of_resnet50_have_four_times_the_width():
    network = build(NetworkSpec(name="resnet50", width=4))
    expected = [(16, 32, 32)] * 3 + [(32, 16, 16)] * 4 + [(64, 8, 8)] * 6 + [(128, 4, 4)] * 3
    assert shapes_of(network, Bottleneck, (3, 32, 32)) == expected


def test_stages_of_a_wide_resnet_are_ten_times_the_stem():
    network = build(NetworkSpec(name="wideresnet28-10", width=1, stem_stride=2))
    assert shapes_of(network, PreactivationBlock, (3, 32, 32)) == [(10, 16, 16)] * 4 + [(20, 8, 8)] * 4 + [(40, 4, 4)] * 4


@pytest.mark.parametrize(("side", "pooled"), [(8, [4, 2, 1, 1, 1]), (28, [14, 7, 4, 2, 1]), (32, [16, 8, 4, 2, 1])])
def test_vgg_pools_down_to_one_pixel_and_no_further(side: int, pooled: list[int]):
    shapes = shapes_of(build(NetworkSpec(name="vgg11", width=2)), nn.MaxPool2d, (3, side, side))
    assert [shape[1] for shape in shapes] == pooled
    assert [shape[0] for shape in shapes] == [2, 4, 8, 16, 16]


def only_the_middle(convolution: nn.Module, value: float) -> None:
    assert isinstance(convolution, nn.Conv2d)
    with torch.no_grad():
        convolution.weight.zero_()
        convolution.weight[:, :, 1, 1] = value


def one_pixel(block: nn.Module, value: float) -> float:
    output: Tensor = block.eval()(torch.full((1, 1, 1, 1), value))
    return output.item()


def test_a_basic_block_adds_its_input_before_the_last_relu():
    block = BasicBlock(1, 1, 1)
    only_the_middle(block.conv1, 2.0)
    only_the_middle(block.conv2, -0.25)
    assert one_pixel(block, 3.0) == pytest.approx(1.5, abs=1e-3)  # 3 -> 6 -> -1.5; 3 - 1.5
    assert one_pixel(block, -1.0) == 0.0  # relu(-2) = 0; relu(0 - 1)


def test_a_preactivation_block_has_no_relu_after_the_sum():
    block = PreactivationBlock(1, 1, 1)
    only_the_middle(block.conv1, 2.0)
    only_the_middle(block.conv2, -1.0)
    assert one_pixel(block, 3.0) == pytest.approx(-3.0, abs=1e-3)  # 3 -> 6 -> -6; 3 - 6
    assert one_pixel(block, -1.0) == -1.0  # relu(-1) = 0; -1 + 0


@pytest.mark.parametrize("name", ["lenet300-100", "resnet8", "vgg11", "wideresnet28-10", "row-lstm", "local-mixer"])
def test_networks_export_for_any_batch_and_agree(name: str):
    spec = NetworkSpec(name=name, width=None if name == "lenet300-100" else 2)
    network = build(spec, shape=(3, 8, 8)).eval()
    images = torch.randn(5, 3, 8, 8, generator=seeding.generator(1))
    exported = torch.export.export(network, (images[:3],), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},))
    torch.testing.assert_close(exported.module()(images), network(images))


@pytest.mark.parametrize("spec", SMALL, ids=lambda spec: spec.name)
def test_channels_last_changes_no_output(spec: NetworkSpec):
    network = build(spec, shape=(3, 8, 8)).double().eval()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=seeding.generator(1))
    expected = network(images)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(network(images.to(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize("name", STRIDED)
def test_the_stem_stride_is_that_of_the_first_convolution(name: str):
    network = build(NetworkSpec(name=name, width=1, stem_stride=2))
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    assert (first.in_channels, first.out_channels, first.stride) == (3, 1, (2, 2))
