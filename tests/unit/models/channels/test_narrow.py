"""The dense network that is uniformly narrower."""

from typing import Any

import pytest
import torch
from torch import nn

from autosparse.models.channels.narrow import narrow_network
from autosparse.models.errors import CollapseError
from autosparse.models.masks.mask import prunable
from autosparse.models.networks.build import build_network
from autosparse.models.networks.flops import forward_macs
from autosparse.models.specs.grain import Cost
from autosparse.models.specs.run_specs import NetworkSpec

SHAPE = (3, 16, 16)


def narrow(name: str, share: float, cost: Cost = "multiply_adds", seed: int = 0, **fields: Any) -> nn.Module:
    return narrow_network(NetworkSpec(name=name, **fields), share, cost, image_shape=SHAPE, num_classes=10, seed=seed)


def whole(name: str, **fields: Any) -> nn.Module:
    return build_network(NetworkSpec(name=name, **fields), image_shape=SHAPE, num_classes=10, seed=0)


def macs(network: nn.Module) -> int:
    return sum(forward_macs(network, SHAPE).values())


def weights(network: nn.Module) -> int:
    return sum(weight.numel() for weight in prunable(network).values())


def test_a_network_with_a_width_is_the_one_of_the_nearest_width() -> None:
    found = narrow("resnet8", 0.25)
    assert found.stem[0].out_channels == 8  # type: ignore[index, union-attr]
    same = whole("resnet8", width=8)
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in found.state_dict().items())


def test_the_cost_may_be_another_one() -> None:
    share = weights(whole("resnet8", width=5)) / weights(whole("resnet8"))
    assert narrow("resnet8", share, "weights").stem[0].out_channels == 5  # type: ignore[index, union-attr]


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v3_small", "lenet300-100"])
def test_without_a_width_all_layers_lose_the_same_share(name: str) -> None:
    found, before = narrow(name, 0.25), whole(name)
    assert 0.22 * macs(before) < macs(found) <= 0.25 * macs(before)
    assert found(torch.zeros(2, *SHAPE)).shape == (2, 10)
    widths = [
        (one.out_features / other.out_features)
        for one, other in zip(found.modules(), before.modules(), strict=True)
        if isinstance(one, nn.Linear) and isinstance(other, nn.Linear)
    ][:-1]
    assert max(widths, default=0) - min(widths, default=0) < 0.1  # what is too little for one layer buys in another


def test_weights_are_drawn_anew_for_the_narrower_layers() -> None:
    found = narrow("lenet300-100", 0.25)
    for weight in prunable(found).values():
        assert float(weight.detach().std()) == pytest.approx((2 / weight.shape[1]) ** 0.5, rel=0.1)


def test_weights_that_the_definition_draws_are_scaled_to_their_layer() -> None:
    found, before = narrow("torchvision:resnet18", 0.25, init="own"), whole("torchvision:resnet18", init="own")
    one, other = (network.get_parameter("layer4.1.conv2.weight") for network in (found, before))
    scale = (other[0].numel() / one[0].numel()) ** 0.5
    assert torch.allclose(one, other[: one.shape[0], : one.shape[1]] * scale)


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    first, second, other = (narrow("lenet300-100", 0.5, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(first["1.weight"], other["1.weight"])


def test_less_than_one_channel_a_layer_is_refused() -> None:
    with pytest.raises(CollapseError, match=r"density: 1e-07 is not allowed"):
        narrow("torchvision:mobilenet_v3_small", 1e-7)
