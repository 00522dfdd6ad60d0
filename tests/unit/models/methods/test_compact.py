"""Channel groups, baking and purging: which channels belong together, and that nothing changes when dead ones go."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autosparse.models.errors import SpecError
from autosparse.models.masks import mask as masks
from autosparse.models.methods.channel_groups import ChannelGroup, Site, channel_groups
from autosparse.models.methods.compact import purge
from autosparse.models.methods.registry import METHODS, parse
from tests.gated_networks import CLASSES, network, outputs, setup_for

CASES = [
    ("constrained_l0()", "resnet"),
    ("constrained_l0(tied=false)", "resnet"),
    ("constrained_l0()", "vgg"),
    ("constrained_l0()", "plain"),
    ("constrained_l0()", "wide"),
    ("constrained_l0(unit=weight)", "resnet"),
    ("constrained_l0(unit=weight)", "plain"),
    ("dep_l0()", "resnet"),
    ("dep_l0(tied=true,direction=backward)", "resnet"),
    ("dep_l0()", "vgg"),
    ("gdp()", "resnet"),
    ("gdp()", "vgg"),
    ("gdp()", "plain"),
]


def gated(method: str, kind: str) -> tuple[nn.Module, Any]:
    """A network whose gates are partly 0, partly 1 and partly between, and the parts."""
    module = network(kind)
    name, (settings,) = parse(method)
    parts = METHODS[name].parts(setup_for(module, density=0.5), settings)
    source, draws = parts.transforms[0].bank.source, torch.Generator().manual_seed(3)
    with torch.no_grad():
        for param in source.parameters():
            drawn = 3 * torch.randn(param.shape, generator=draws)
            param.copy_(drawn * (drawn.abs() > 1.5) if name == "gdp" else drawn)
    return module, parts


def test_the_groups_of_a_residual_network() -> None:
    assert channel_groups(network("resnet")) == [
        ChannelGroup(
            4,
            (Site("stem.0", "stem.1"), Site("stages.0.0.conv2", "stages.0.0.norm2")),
            ("stages.0.0.conv1", "stages.1.0.conv1", "stages.1.0.shortcut.0"),
        ),
        ChannelGroup(4, (Site("stages.0.0.conv1", "stages.0.0.norm1"),), ("stages.0.0.conv2",)),
        ChannelGroup(8, (Site("stages.1.0.conv1", "stages.1.0.norm1"),), ("stages.1.0.conv2",)),
        ChannelGroup(
            8,
            (Site("stages.1.0.conv2", "stages.1.0.norm2"), Site("stages.1.0.shortcut.0", "stages.1.0.shortcut.1")),
            ("stages.2.0.conv1", "stages.2.0.shortcut.0"),
        ),
        ChannelGroup(16, (Site("stages.2.0.conv1", "stages.2.0.norm1"),), ("stages.2.0.conv2",)),
        ChannelGroup(
            16,
            (Site("stages.2.0.conv2", "stages.2.0.norm2"), Site("stages.2.0.shortcut.0", "stages.2.0.shortcut.1")),
            ("head",),
        ),
    ]


def test_without_tied_groups_only_what_one_layer_writes() -> None:
    sites = [group.sites for group in channel_groups(network("resnet"), tied=False)]
    assert sites == [(Site(f"stages.{stage}.0.conv1", f"stages.{stage}.0.norm1"),) for stage in range(3)]


def test_channels_are_followed_through_pooling_and_flattening() -> None:
    assert channel_groups(network("vgg")) == [
        ChannelGroup(6, (Site("0", "1"),), ("4",)),
        ChannelGroup(5, (Site("4", "5"),), ("9",)),
        ChannelGroup(7, (Site("9", None),), ("11",)),
    ]


def test_a_preactivated_stream_is_left_alone() -> None:
    groups = channel_groups(network("wide"))
    assert [group.sites for group in groups] == [(Site(f"{block}.conv1", f"{block}.norm2"),) for block in (1, 2, 3)]


class Twice(nn.Module):
    """One layer in two places, and one behind it that is used once."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.last, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.last(self.shared(torch.relu(self.shared(torch.relu(self.first(x))))))))


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def sites(module: nn.Module) -> list[str]:
    return [site.layer for group in channel_groups(module) for site in group.sites]


@pytest.mark.parametrize(
    ("module", "left"),
    [
        (Twice(), ["last"]),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)), ["2"]),
        (nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 4), nn.Linear(4, 2)), ["2"]),
        (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 2)), ["2"]),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 2)), ["3"]),
    ],
)
def test_what_cannot_be_removed_exactly_is_no_group(module: nn.Module, left: list[str]) -> None:
    assert sites(module) == left


@pytest.mark.parametrize(
    "module", [Branching(), nn.Sequential(nn.Linear(4, 2)), nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 2))]
)
def test_networks_without_groups_are_refused_in_one_line(module: nn.Module) -> None:
    with pytest.raises(SpecError, match=r"^network: '\w+' is not allowed; allowed: a network .*$"):
        channel_groups(module)


@pytest.mark.parametrize(("method", "kind"), CASES)
def test_a_baked_network_is_plain_and_says_what_the_gated_one_said(method: str, kind: str) -> None:
    module, parts = gated(method, kind)
    expected, before = outputs(module), network(kind)
    assert float((expected - outputs(before)).abs().max()) > 0.01  # the gates do something
    parts.transforms[0].bake(module)
    assert torch.allclose(outputs(module), expected, atol=1e-5)
    assert list(module.state_dict()) == list(before.state_dict())
    assert [name for name, _ in module.named_parameters()] == [name for name, _ in before.named_parameters()]
    assert [type(part) for part in module.modules()] == [type(part) for part in before.modules()]
    assert not module._forward_pre_hooks
    assert not module._forward_hooks


@pytest.mark.parametrize(("method", "kind"), [case for case in CASES if "weight" not in case[0]])
def test_a_purged_network_is_smaller_and_says_the_same(method: str, kind: str) -> None:
    module, parts = gated(method, kind)
    expected, share = outputs(module), parts.facts()["density"]
    parts.transforms[0].bake(module)
    small = parts.rewrite(module, torch.Generator())
    assert torch.allclose(outputs(small), expected, atol=1e-5)
    weights, fewer = masks.prunable(module), masks.prunable(small)
    total, left = (sum(param.numel() for param in params.values()) for params in (weights, fewer))
    assert left < total
    assert left == sum(int(param.count_nonzero()) for param in weights.values())  # of the baked network
    assert left == pytest.approx(share * total)


def test_channels_are_cut_by_hand() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    with torch.no_grad():
        for tensor, values in zip(module.parameters(), ([[1, 2], [0, 0], [3, 4]], [5, 0, 0], [[6, 7, 8]], [9]), strict=True):
            tensor.copy_(torch.tensor(values))
    small = purge(module)
    assert [param.tolist() for param in small.parameters()] == [[[1, 2], [3, 4]], [5, 0], [[6, 8]], [9]]
    assert repr(small[0]) == "Linear(in_features=2, out_features=2, bias=True)"  # type: ignore[index]
    assert module[0].out_features == 3


def test_of_a_dead_group_one_channel_stays() -> None:
    module = network("vgg")
    with torch.no_grad():
        module[1].weight.zero_(), module[1].bias.zero_()  # type: ignore[index]
    small = purge(module)
    assert small[0].weight.shape == (1, 1, 3, 3)  # type: ignore[index]
    assert torch.allclose(outputs(small), outputs(module), atol=1e-5)


@pytest.mark.parametrize("method", ["constrained_l0()", "dep_l0()", "gdp()"])
def test_a_copy_of_a_gated_network_has_gates_of_its_own(method: str) -> None:
    module, parts = gated(method, "resnet")
    expected = outputs(module)
    copy = deepcopy(module)
    parts.transforms[0].bake(copy)
    assert torch.allclose(outputs(copy), expected, atol=1e-5)
    copy = deepcopy(module)
    with torch.no_grad():
        for param in copy.parameters():
            param.zero_()
    assert torch.equal(outputs(module), expected)
    assert outputs(copy).abs().max() == 0
    assert any("parametrizations" in name for name in module.state_dict())


def test_a_state_dict_brings_the_gates_to_another_network() -> None:
    module, _ = gated("dep_l0()", "resnet")
    name, (settings,) = parse("dep_l0()")
    other = network("resnet")
    METHODS[name].parts(setup_for(other, seed=6), settings)
    assert not torch.equal(outputs(other), outputs(module))
    other.load_state_dict(module.state_dict())
    assert torch.equal(outputs(other), outputs(module))
    assert outputs(other).shape == (8, CLASSES)
