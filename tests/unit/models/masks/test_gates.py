"""Effective density: paths counted one by one on small chains, and known cuts in real networks."""

from itertools import pairwise, product

import pytest
import torch
from torch import nn

from autosparse.models import seeding
from autosparse.models.errors import SpecError
from autosparse.models.masks import mask as masks
from autosparse.models.masks.gates import effective, effective_density, facts
from autosparse.models.masks.mask import Mask
from autosparse.models.networks.build import build_network
from autosparse.models.specs.run_specs import NetworkSpec

T, F = True, False


def chain(*sizes: int, bias: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def by_enumeration(mask: Mask) -> Mask:
    """Walk every path of a chain from unit to unit and mark the weights of those that are kept throughout."""
    layers = list(mask.items())
    marked = {name: torch.zeros_like(keep) for name, keep in layers}
    sizes = [layers[0][1].shape[1], *(keep.shape[0] for _, keep in layers)]
    for path in product(*map(range, sizes)):
        steps = list(zip(layers, path, path[1:], strict=False))
        if all(keep[end, start] for (_, keep), start, end in steps):
            for (name, _), start, end in steps:
                marked[name][end, start] = True
    return marked


def equal(mask: Mask, other: Mask) -> bool:
    return mask.keys() == other.keys() and all(torch.equal(keep, other[name]) for name, keep in mask.items())


@pytest.mark.parametrize("sizes", [(2, 2, 2, 1), (2, 3, 2, 2), (3, 2, 3, 1), (1, 4, 2, 4)])
def test_effective_weights_are_those_of_enumerated_paths(sizes: tuple[int, ...]) -> None:
    network, found = chain(*sizes, bias=True), set()
    for seed in range(40):
        stream = torch.Generator().manual_seed(seed)
        mask = {name: torch.rand(param.shape, generator=stream) < 0.5 for name, param in masks.prunable(network).items()}
        expected = by_enumeration(mask)
        assert equal(effective(network, mask, (sizes[0],)), expected)
        found.add(masks.kept(expected) - masks.kept(mask))
    assert min(found) < 0  # some of these masks do have dead weights


def test_effective_density_on_paper() -> None:
    # unit 1 of the hidden layer gets no input, unit 2 has no output: 2 of 5 kept weights are on the path
    mask = {"0.weight": torch.tensor([[T, F], [F, F], [T, T]]), "2.weight": torch.tensor([[T, T, F]])}
    found = effective(chain(2, 3, 1), mask, (2,))
    assert found["0.weight"].tolist() == [[T, F], [F, F], [F, F]] and found["2.weight"].tolist() == [[T, F, F]]
    assert effective_density(chain(2, 3, 1), mask, (2,)) == 2 / 9


def test_a_bias_or_a_running_mean_is_no_input() -> None:
    network = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2), nn.ReLU(inplace=True), nn.Linear(2, 1))
    with torch.no_grad():
        network[1].running_mean += 3.0
        network[1].bias += 1.0
    mask = {"0.weight": torch.tensor([[T], [F]]), "3.weight": torch.tensor([[T, T]])}
    assert effective(network, mask, (1,))["3.weight"].tolist() == [[T, F]]


def test_facts_of_a_mask() -> None:
    mask = {"0.weight": torch.tensor([[T], [F]]), "2.weight": torch.tensor([[F, T]])}
    found = facts(chain(1, 2, 1), mask, (1,), density=0.5)
    assert (found["kept"], found["density"], found["exact"], found["effective_density"]) == (2, 0.5, True, 0.0)
    assert (found["collapsed"], found["cut_off"]) == ([], ["0.weight", "2.weight"])
    assert facts(chain(1, 2, 1), mask, (1,), density=0.75)["exact"] is False
    empty = mask | {"2.weight": torch.tensor([[F, F]])}
    found = facts(chain(1, 2, 1), empty, (1,), density=0.25)
    assert (found["collapsed"], found["cut_off"]) == (["2.weight"], ["0.weight"])


def network_of(name: str, **fields: int) -> nn.Module:
    return build_network(NetworkSpec(name=name, **fields), image_shape=(3, 8, 8), num_classes=4, seed=0)


@pytest.mark.parametrize(("name", "width"), [("resnet8", 4), ("vgg16", 4), ("resnet50", 4), ("resnet56", 4), ("lenet300-100", None)])
def test_a_full_network_is_wholly_effective_but_for_taps_that_only_see_padding(name: str, width: int | None) -> None:
    network = network_of(name, **({"width": width} if width else {}))
    params = masks.prunable(network)
    found = effective(network, masks.full(params), (3, 8, 8))
    for layer, alive in found.items():
        # 8 pixels halve to 1: there a 3x3 kernel only ever sees the pixel in its middle
        assert alive.all() or (alive.shape[2:] == (3, 3) and alive[:, :, 1, 1].all() and not alive[:, :, 0, 0].any()), layer
    if name != "vgg16" and name != "resnet50":
        assert all(alive.all() for alive in found.values())


def test_max_pooling_leaves_no_weight_out() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 2, 1), nn.AdaptiveMaxPool2d(1))
    assert effective_density(network, masks.full(masks.prunable(network)), (1, 2, 2)) == 1.0


def test_pooling_as_a_function_of_torch_keeps_its_shape() -> None:
    class Pooling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(1, 2, 1), nn.Linear(8, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.last(torch.max_pool2d(self.first(images), 2, 2, 0, 1, True).flatten(1))

    assert effective_density(Pooling(), masks.full(masks.prunable(Pooling())), (1, 3, 3)) == 1.0


def test_a_cut_shortcut_leaves_the_branch_alive_and_a_cut_branch_the_shortcut() -> None:
    network = network_of("resnet8", width=4)
    whole = masks.full(masks.prunable(network))
    block = "stages.1.0"

    def cut(*layers: str) -> dict[str, bool]:
        mask = whole | {f"{block}.{layer}.weight": torch.zeros_like(whole[f"{block}.{layer}.weight"]) for layer in layers}
        found = effective(network, mask, (3, 8, 8))
        assert all(alive.all() for name, alive in found.items() if not name.startswith(block)) or len(layers) > 1
        return {layer: bool(found[f"{block}.{layer}.weight"].all()) for layer in ("conv1", "conv2", "shortcut.0")}

    assert cut("shortcut.0") == {"conv1": T, "conv2": T, "shortcut.0": F}
    assert cut("conv1") == {"conv1": F, "conv2": F, "shortcut.0": T}
    assert cut("conv2") == {"conv1": F, "conv2": F, "shortcut.0": T}
    assert cut("conv1", "shortcut.0") == {"conv1": F, "conv2": F, "shortcut.0": F}
    mask = whole | {f"{block}.{layer}.weight": torch.zeros_like(whole[f"{block}.{layer}.weight"]) for layer in ("conv1", "shortcut.0")}
    assert effective_density(network, mask, (3, 8, 8)) == 0.0  # nothing gets through at all


def test_an_identity_shortcut_carries_past_an_empty_branch() -> None:
    network = network_of("resnet8", width=4)
    whole = masks.full(masks.prunable(network))
    mask = whole | {"stages.0.0.conv1.weight": torch.zeros_like(whole["stages.0.0.conv1.weight"])}
    found = effective(network, mask, (3, 8, 8))
    assert masks.collapsed_layers(found) == ["stages.0.0.conv1.weight", "stages.0.0.conv2.weight"]


def test_a_dense_head_connects() -> None:
    network = chain(2, 2, 2)
    mask = {"0.weight": torch.tensor([[T, F], [F, F]])}
    assert effective(network, mask, (2,))["0.weight"].tolist() == [[T, F], [F, F]]


def test_depth_neither_overflows_nor_vanishes() -> None:
    sizes = [1, *[50] * 400, 1]
    network = chain(*sizes)
    whole = masks.full(masks.prunable(network))
    assert effective_density(network, whole, (1,)) == 1.0  # 50 ** 400 paths
    thin = {name: torch.zeros_like(keep) for name, keep in whole.items()}
    for keep in thin.values():
        keep[0, 0] = True
    thin["2.weight"][1:, 0] = True
    for name in list(thin)[2:-1]:
        thin[name][1:, 1:] = True  # beside the one thin path a broad one that ends before the output
    expected = {name: torch.zeros_like(keep) for name, keep in thin.items()}
    for keep in expected.values():
        keep[0, 0] = True
    assert equal(effective(network, thin, (1,)), expected)


def test_the_network_and_the_generator_are_left_alone() -> None:
    network = network_of("resnet8", width=4).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.random.get_rng_state()
    effective(network, masks.full(masks.prunable(network)), (3, 8, 8))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.training and torch.equal(torch.random.get_rng_state(), state)


def test_a_mask_of_another_network_is_refused() -> None:
    with pytest.raises(SpecError, match="mask: 9.weight"):
        effective(chain(1, 1), {"9.weight": torch.ones(1, 1, dtype=torch.bool)}, (1,))


@pytest.mark.parametrize("signed", [True, False])
def test_at_initialization_the_effective_weights_are_those_with_a_gradient(signed: bool) -> None:
    """The real network with real values, where biases are zero: with signs ReLU may close a path, without it opens them all."""
    network = network_of("resnet8", width=4).double()
    stream = seeding.generator(1, "test")
    params = masks.prunable(network)
    mask = {name: torch.rand(param.shape, generator=stream) < 0.1 for name, param in params.items()}
    masks.apply_(network, mask)
    if not signed:
        for param in params.values():
            param.data.abs_()
    alive = effective(network, mask, (3, 8, 8))
    assert 0 < masks.kept(alive) < masks.kept(mask)
    images = torch.rand(16, 3, 8, 8, generator=stream, dtype=torch.float64)
    network.eval()(images).square().sum().backward()
    moved = {name: (param.grad != 0) & mask[name] for name, param in params.items() if param.grad is not None}
    assert all(not (moved[name] & ~alive[name]).any() for name in mask)
    assert signed or equal(moved, alive)


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(4, 1), nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.attention(images, images, images)[0])


def test_attention_connects_what_it_lets_through() -> None:
    network = Attentive()
    mask = masks.full(masks.prunable(network))
    found = facts(network, mask, (3, 4), density=1.0)
    assert (found["kept"], found["cut_off"], found["effective_density"]) == (72, [], 1.0)
    values_off = mask["attention.in_proj_weight"].clone()
    values_off[8:] = False  # queries and keys of nothing
    found = effective(network, mask | {"attention.in_proj_weight": values_off}, (3, 4))
    assert masks.kept(found) == 0
    keys_off = mask["attention.in_proj_weight"].clone()
    keys_off[4:8] = False  # then queries ask nothing, and all values are let through alike
    found = effective(network, mask | {"attention.in_proj_weight": keys_off}, (3, 4))["attention.in_proj_weight"]
    assert not found[:8].any() and found[8:].all()
