"""Masks: what is prunable, what a mask says about itself, how it is applied."""

import pytest
import torch
from torch import nn

from autosparse.models.errors import SpecError
from autosparse.models.masks import mask as masks

T, F = True, False


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3), nn.Linear(3, 2))


def test_prunable_weights_are_those_of_convolutions_and_linear_layers_in_order():
    assert list(masks.prunable(small())) == ["0.weight", "4.weight", "5.weight"]
    three = nn.ModuleDict({"b": nn.Conv3d(1, 1, 1), "a": nn.Conv1d(1, 1, 1), "up": nn.ConvTranspose2d(1, 1, 1), "norm": nn.LayerNorm(2)})
    assert list(masks.prunable(three)) == ["b.weight", "a.weight", "up.weight"]
    assert list(masks.prunable(nn.Linear(2, 2))) == ["weight"]


def test_prunable_returns_the_parameters_themselves():
    network = small()
    assert masks.prunable(network)["4.weight"] is network[4].weight


def test_the_order_is_that_of_named_parameters_also_with_shared_weights():
    network = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Conv2d(1, 1, 1), "c": nn.Linear(2, 2)})
    network["c"].weight = network["a"].weight
    assert list(masks.prunable(network)) == ["a.weight", "b.weight"]


def test_without_head_the_last_linear_or_else_the_last_convolution_is_left_out():
    assert list(masks.prunable(small(), head=False)) == ["0.weight", "4.weight"]
    assert list(masks.prunable(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)), head=False)) == ["0.weight"]
    assert list(masks.prunable(nn.Sequential(nn.Linear(1, 1), nn.Conv1d(1, 1, 1)), head=False)) == ["1.weight"]


@pytest.mark.parametrize(("network", "head"), [(nn.ReLU(), True), (nn.Linear(2, 2), False)])
def test_a_network_with_nothing_to_prune_is_refused(network: nn.Module, head: bool):
    with pytest.raises(SpecError, match="network: .* at least one prunable"):
        masks.prunable(network, head=head)


def test_counts_densities_and_collapsed_layers_by_hand():
    mask = {"a": torch.tensor([[T, F], [F, F]]), "b": torch.tensor([F, F]), "c": torch.tensor([T, T])}
    assert (masks.kept(mask), masks.total(mask), masks.density(mask)) == (3, 8, 0.375)
    assert masks.layer_densities(mask) == {"a": 0.25, "b": 0.0, "c": 1.0}
    assert masks.collapsed_layers(mask) == ["b"]


def test_the_full_mask_keeps_everything():
    mask = masks.full(masks.prunable(small()))
    assert masks.kept(mask) == masks.total(mask) == 2 * 9 + 8 * 3 + 3 * 2
    assert masks.collapsed_layers(mask) == []


def test_apply_zeroes_masked_weights_and_nothing_else():
    network = nn.Linear(2, 2)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, -2.0], [float("nan"), 4.0]]))
    bias, mask = network.bias.detach().clone(), {"weight": torch.tensor([[T, F], [F, T]])}
    assert masks.violations(network, mask) == 2
    masks.apply_(network, mask)
    assert network.weight.tolist() == [[1.0, 0.0], [0.0, 4.0]]
    assert torch.equal(network.bias, bias)
    assert masks.violations(network, mask) == 0


def test_one_revived_weight_is_one_violation():
    network = nn.Conv2d(2, 2, 3)
    network.weight.data = network.weight.data.contiguous(memory_format=torch.channels_last)
    mask = {"weight": torch.zeros(2, 2, 3, 3, dtype=torch.bool)}
    masks.apply_(network, mask)
    with torch.no_grad():
        network.weight[1, 0, 2, 1] = 1e-30
    assert masks.violations(network, mask) == 1


@pytest.mark.parametrize("mask", [{"weights": torch.ones(2, 2, dtype=torch.bool)}, {"weight": torch.ones(2, 3, dtype=torch.bool)}])
def test_a_mask_of_another_network_is_refused(mask: masks.Mask):
    with pytest.raises(SpecError, match="mask: weight"):
        masks.apply_(nn.Linear(2, 2), mask)


def test_overlap_is_the_share_of_the_other_masks_weights():
    mask, other = {"a": torch.tensor([T, T, F, F])}, {"a": torch.tensor([T, F, T, T])}
    assert masks.overlap(mask, other) == pytest.approx(1 / 3)
    assert masks.overlap(other, mask) == 0.5
    assert masks.overlap(mask, mask) == 1.0


def test_the_checksum_sees_content_only():
    keep = torch.rand(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)) > 0.5
    mask = {"a": keep, "b": torch.tensor([T, F])}
    relaid = {"b": mask["b"].clone(), "a": keep.contiguous(memory_format=torch.channels_last)}
    assert masks.checksum(mask) == masks.checksum(relaid)
    flipped = keep.clone()
    flipped[1, 2, 0, 1] ^= True
    others = [mask | {"a": flipped}, {"x": keep, "b": mask["b"]}, mask | {"a": keep.reshape(4, 9, 3, 1)}, {"a": keep}]
    assert len({masks.checksum(mask), *map(masks.checksum, others)}) == 5


def test_the_checksum_does_not_drift():
    assert masks.checksum({"a": torch.tensor([T, F, T])}) == "ee8598bc46eeedcb"  # sha256 of b"a(3,)" and the byte 0b10100000
