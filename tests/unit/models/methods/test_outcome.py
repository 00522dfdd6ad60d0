"""Densities and multiply-adds of what a method leaves behind, by numbers on paper."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from autosparse.models.methods.contract import Parts
from autosparse.models.methods.outcome import bake, densities, finite, inference_macs, nonzero, own_tensors, replaced, step_macs
from autosparse.models.networks.flops import forward_macs

SHAPE = (1, 4, 4)


def network() -> nn.Sequential:
    """16 + 4 + 4 parameters in convolution and norm, 64 * 3 + 3 in the classifier; all weights 1."""
    module = nn.Sequential(
        nn.Conv2d(1, 4, 2, padding=1, stride=1, bias=False), nn.BatchNorm2d(4), nn.AvgPool2d(5), nn.Flatten(), nn.Linear(4, 3)
    )
    for param in module.parameters():
        nn.init.ones_(param)
    return module


def some_zeros() -> nn.Sequential:
    """4 of 16 weights and one shift of four are zero, and 6 of 12 of the classifier."""
    module = network()
    with torch.no_grad():
        module[0].weight[0] = 0  # type: ignore[index]
        module[1].bias[0] = 0  # type: ignore[index]
        module[4].weight[:2, :3] = 0  # type: ignore[index]
    return module


def test_three_counts_of_one_network() -> None:
    module = some_zeros()
    found = densities(module, module, head=True, own=["0.weight", "1.bias"])
    assert found["kept_density"] == pytest.approx(18 / 28)  # 12 of 16, 6 of 12
    assert found["density_all"] == pytest.approx((12 + 4 + 3 + 6 + 3) / (16 + 4 + 4 + 12 + 3))
    assert found["density_own"] == pytest.approx((12 + 3) / 20)
    assert densities(module, module, head=False)["kept_density"] == pytest.approx(12 / 16)
    assert densities(module, module, head=True)["density_own"] is None
    assert {name: int(keep.sum()) for name, keep in nonzero(module, head=False).items()} == {"0.weight": 12}


def test_a_smaller_network_is_measured_by_the_room_that_it_had() -> None:
    small = nn.Sequential(nn.Conv2d(1, 2, 2, bias=False), nn.BatchNorm2d(2), nn.AvgPool2d(5), nn.Flatten(), nn.Linear(2, 3))
    for param in small.parameters():
        nn.init.ones_(param)
    found = densities(small, network(), head=True, own=["0.weight"])
    assert found["kept_density"] == pytest.approx((8 + 6) / 28)
    assert found["density_all"] == pytest.approx((8 + 4 + 6 + 3) / 39)
    assert found["density_own"] == pytest.approx(8 / 16)


def test_multiply_adds_of_what_is_not_zero() -> None:
    module = some_zeros()
    macs = forward_macs(module, SHAPE)
    assert macs == {"0.weight": 25 * 4 * 4, "4.weight": 12}  # 5 x 5 outputs of 4 channels, 4 weights each
    assert inference_macs(module, macs) == pytest.approx(400 * 12 / 16 + 6)
    assert inference_macs(module, macs, {"0.weight": 70.0}) == pytest.approx(70 + 6)
    mask = {"0.weight": torch.arange(16).reshape(4, 1, 2, 2) < 4}
    assert step_macs(macs, mask) == pytest.approx(3 * (100 + 12))
    assert step_macs(macs, None) == 3 * 412


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


class Doubling:
    def __init__(self, module: nn.Module) -> None:
        parametrize.register_parametrization(module, "weight", Doubled())

    def sample(self, generator: torch.Generator) -> None: ...

    def bake(self, network: nn.Module) -> None:
        parametrize.remove_parametrizations(network[0], "weight")  # type: ignore[index]


def test_what_was_attached_last_is_baked_first_and_own_tensors_are_those_behind_it() -> None:
    module, order = network(), []
    expected = copy.deepcopy(module)(torch.ones(2, 1, 4, 4))

    class Noted(Doubling):
        def __init__(self, name: str) -> None:
            self.name = name

        def bake(self, network: nn.Module) -> None:
            order.append(self.name)

    doubling = Doubling(module[0])
    parts = Parts(transforms=[doubling, Noted("a"), Noted("b")])
    assert own_tensors(module, parts) == {"0.weight"}
    assert replaced(parts) == ["transforms"]
    plain = bake(module, parts)
    assert order == ["b", "a"]
    assert torch.equal(plain[0].weight, torch.full((4, 1, 2, 2), 2.0))  # type: ignore[index]
    assert own_tensors(module, Parts()) == set()
    assert expected.shape == (2, 3)


def test_facts_are_numbers() -> None:
    assert finite({"a": 1, "b": float("nan"), "c": float("inf"), "d": 0.5}) == {"a": 1.0, "d": 0.5}
