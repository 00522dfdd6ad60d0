"""Multiply-adds of networks small enough to count on paper."""

import pytest
import torch
from torch import nn

from autosparse.models.networks.flops import forward_macs, training_macs


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),  # 8 x 8 x 4 outputs of 3 * 3 * 3 products: 6912
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2, bias=False),  # 4 x 4 x 4 outputs of 2 * 3 * 3 products: 1152
        nn.Flatten(),
        nn.Linear(64, 10),  # 640
    )


def test_counts_on_paper() -> None:
    assert forward_macs(small(), (3, 8, 8)) == {"0.weight": 6912, "2.weight": 1152, "4.weight": 640}


def test_a_layer_used_twice_counts_twice() -> None:
    layer = nn.Linear(5, 5)
    assert forward_macs(nn.Sequential(nn.Flatten(), layer, layer), (5, 1, 1)) == {"1.weight": 50}


def test_the_network_stays_as_it_was() -> None:
    network = small().train()
    network[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    forward_macs(network, (3, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training and network[0].training and not network[1].training
    assert not any(module._forward_hooks for module in network.modules())


def test_training_is_three_forward_passes_and_density_scales_each_layer() -> None:
    macs = {"a": 100, "b": 10, "head": 1}
    assert training_macs(macs) == 333
    assert training_macs(macs, {"a": 0.1, "b": 0.5}) == pytest.approx(3 * (10 + 5 + 1))
