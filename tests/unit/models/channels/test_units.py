"""Units of width of small networks, by hand, and of other people's networks against what compaction leaves."""

import pytest
import torch
from torch import Tensor, nn

from autosparse.library.compaction import compact_to_train
from autosparse.models.channels.examples import example_of
from autosparse.models.channels.units import costs_by_weight, price, units_of
from autosparse.models.errors import SpecError
from autosparse.models.masks import mask as masks
from autosparse.models.networks.build import build_network
from autosparse.models.networks.flops import forward_macs
from autosparse.models.specs.run_specs import NetworkSpec


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))


class Residual(nn.Module):
    """A stream of 4 channels that two layers write, and 6 channels inside."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        stream = self.stem(images)
        return self.head((stream + self.outer(self.inner(stream).relu())).mean((2, 3)))


def test_inputs_and_outputs_are_no_units() -> None:
    units = units_of(mlp(), torch.ones(1, 2))
    assert units.sizes == [4] and units.layers == ("0.weight",)


def test_a_residual_stream_is_one_group() -> None:
    units = units_of(Residual(), torch.ones(1, 1, 4, 4))
    assert sorted(units.sizes) == [4, 6]
    stream = int(units.group[units.sides["stem.weight"][0][0]])
    for name, axis in (("outer.weight", 0), ("inner.weight", 1), ("head.weight", 1), ("stem.bias", 0)):
        assert torch.equal(units.sides[name][axis], units.sides["stem.weight"][0])
    assert units.sizes[stream] == 4


def test_the_mask_keeps_what_lies_between_units_that_stay() -> None:
    network = mlp()
    units = units_of(network, torch.ones(1, 2))
    mask = units.mask(network, torch.tensor([True, False, True, False]))
    assert mask["0.weight"].tolist() == [[True] * 2, [False] * 2, [True] * 2, [False] * 2]
    assert mask["2.weight"].tolist() == [[True, False, True, False]] * 3


def test_prices_by_hand() -> None:
    network = Residual()
    units = units_of(network, torch.ones(1, 1, 4, 4))
    stays = torch.ones(10, dtype=torch.bool)
    stays[units.sides["stem.weight"][0][0]] = False  # 3 of 4 channels of the stream
    stays[units.sides["inner.weight"][0][:3]] = False  # 3 of 6 inside
    weights = costs_by_weight({}, network, "weights")
    assert price(units, weights, torch.ones_like(stays)) == 4 * 9 + 24 + 24 + 8
    assert price(units, weights, stays) == pytest.approx(3 * 9 + 9 + 9 + 6)
    macs = costs_by_weight(forward_macs(network, (1, 4, 4)), network, "multiply_adds")  # a map of 2 x 2 behind the stem
    assert price(units, macs, stays) == pytest.approx(4 * (27 + 9 + 9) + 6)
    assert price(units, costs_by_weight({}, network, "parameters"), stays) == pytest.approx(27 + 9 + 9 + 6 + 3 + 3 + 3 + 2)


def test_depthwise_channels_leave_one_by_one_and_grouped_ones_by_place() -> None:
    depthwise = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 3, groups=4, padding=1), nn.Conv2d(4, 2, 1), nn.Flatten(1))
    assert units_of(depthwise, torch.ones(1, 1, 2, 2)).sizes == [4]
    grouped = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 8, 1, groups=2), nn.Conv2d(8, 2, 1))
    assert sorted(units_of(grouped, torch.ones(1, 1, 2, 2)).sizes) == [2, 4]  # half as many: one of each of two groups


def test_a_group_of_a_norm_leaves_whole() -> None:
    network = nn.Sequential(nn.Conv2d(1, 6, 1), nn.GroupNorm(3, 6), nn.Conv2d(6, 2, 1))
    assert units_of(network, torch.ones(1, 1, 2, 2)).sizes == [3]


def test_a_network_without_channels_that_can_leave_says_so() -> None:
    with pytest.raises(SpecError, match=r"network: 'Linear' is not allowed; allowed: a network with channels that can leave"):
        units_of(nn.Linear(2, 3), torch.ones(1, 2))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet20", (3, 16, 16)),
        ("vgg11", (3, 16, 16)),
        ("torchvision:mobilenet_v3_small", (3, 32, 32)),
        ("torchvision:regnet_y_400mf", (3, 32, 32)),
        ("torchvision:shufflenet_v2_x0_5", (3, 32, 32)),
    ],
)
def test_the_price_is_what_compaction_leaves(name: str, shape: tuple[int, int, int]) -> None:
    network = build_network(NetworkSpec(name=name), image_shape=shape, num_classes=10, seed=0)
    units = units_of(network, example_of(shape))
    stays = torch.rand(len(units.group), generator=torch.Generator().manual_seed(1)) < 0.5
    stays[[int((units.group == group).nonzero()[0]) for group in range(len(units.layers))]] = True
    small, left = compact_to_train(network, example_of(shape), units.mask(network, stays))
    macs = costs_by_weight(forward_macs(network, shape), network, "multiply_adds")
    assert price(units, macs, stays) == pytest.approx(sum(forward_macs(small, shape).values()))
    parameters = costs_by_weight({}, network, "parameters")
    assert price(units, parameters, stays) == pytest.approx(sum(param.numel() for param in small.parameters()))
    assert all(keep.all() for keep in left.values())
    assert masks.total(left) < 0.6 * sum(weight.numel() for weight in masks.prunable(network).values())
