"""Smaller networks and the same function: constants, masks, sizes, and what is refused."""

import pytest
import torch
from torch import Tensor, nn

from autosparse.library.compaction import Size, compact, compact_with_mask, compaction_table, size
from autosparse.models.errors import CollapseError, SpecError
from autosparse.models.masks import mask as masks


def convolutions(*, padding: int = 0) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=padding), nn.Flatten(), nn.LazyLinear(2))


def ready(network: nn.Module, example: Tensor) -> nn.Module:
    """With random weights that are the same each time."""
    network(example)
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for param in network.parameters():
            param.normal_(generator=stream)
    return network.eval()


IMAGE = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def test_shapes_and_modules_are_those_of_a_smaller_network() -> None:
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3)).train()
    with torch.no_grad():
        net[0].weight[1:3], net[0].bias[1:3] = 0, 0
    small = compact(net, torch.ones(1, 2))
    assert [tuple(param.shape) for param in small.parameters()] == [(2, 2), (2,), (3, 2), (3,)]
    assert (small[0].out_features, small[2].in_features, small.training) == (2, 2, True)
    assert torch.equal(small[2].weight, net[2].weight[:, [0, 3]])
    assert net[0].out_features == 4 and net[0].weight.shape == (4, 2)


def test_a_mask_in_the_place_of_the_example_is_one_line() -> None:
    with pytest.raises(SpecError, match=r"^mask: 'Tensor' is not allowed; allowed: a mask; compact\(model, example, mask\) is the order$"):
        compact(nn.Linear(2, 2), {"weight": torch.ones(2, 2, dtype=torch.bool)}, torch.ones(1, 2))  # type: ignore[arg-type]


def test_a_constant_goes_into_the_bias_of_a_layer_that_pads_nothing() -> None:
    net = ready(convolutions(), IMAGE)
    with torch.no_grad():
        net[0].weight[1], net[0].bias[1] = 0, 2.0
        net[0].weight[2], net[0].bias[2] = 0, -2.0  # the ReLU makes it zero
    small = compact(net, IMAGE)
    assert small[0].out_channels == 1
    torch.testing.assert_close(small[2].bias, net[2].bias + 2 * net[2].weight[:, 1].sum((1, 2)))
    torch.testing.assert_close(small(IMAGE), net(IMAGE))


def test_a_layer_without_a_bias_gets_one_for_a_constant() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        net[0].weight[1], net[0].bias[1] = 0, 0
    small = compact(net, torch.ones(1, 2))
    torch.testing.assert_close(small[2].bias, 0.5 * net[2].weight[:, 1])
    small_again = compact(small, torch.ones(1, 2))
    assert small_again[0].out_features == 2


def test_a_constant_that_padding_cuts_at_the_border_is_refused_and_nothing_changes() -> None:
    net = ready(convolutions(padding=1), IMAGE)
    with torch.no_grad():
        net[0].weight[1], net[0].bias[1] = 0, 2.0
    with pytest.raises(
        SpecError, match=r"^compact: 1 channels .* bring 2\.weight a constant .*; allowed: channels at zero \(hold the mask"
    ):
        compact(net, IMAGE)
    with torch.no_grad():
        net[0].bias[1] = 0
    assert compact(net, IMAGE)[0].out_channels == 2


def test_with_a_mask_it_is_the_masked_network_that_gets_smaller() -> None:
    net = ready(convolutions(), IMAGE)
    mask = masks.full(masks.prunable(net))
    mask["0.weight"][0] = False
    mask["2.weight"][1, 2, 0] = False
    small, left = compact_with_mask(net, IMAGE, mask)
    assert {name: tuple(keep.shape) for name, keep in left.items()} == {name: tuple(p.shape) for name, p in masks.prunable(small).items()}
    assert left["2.weight"].flatten(2).sum(2).tolist() == [[9, 9], [9, 6]] and masks.violations(small, left) == 0
    assert net[0].weight[0].ne(0).all()
    masks.apply_(net, mask)
    torch.testing.assert_close(small(IMAGE), net(IMAGE))


def test_without_dead_channels_the_copy_is_equal() -> None:
    net = ready(convolutions(), IMAGE)
    small = compact(net, IMAGE)
    assert all(torch.equal(one, other) for one, other in zip(net.state_dict().values(), small.state_dict().values(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_dtype_stays(dtype: torch.dtype) -> None:
    net = ready(convolutions(), IMAGE).to(dtype)
    with torch.no_grad():
        net[0].weight[1], net[0].bias[1] = 0, 2.0
    small = compact(net, IMAGE.to(dtype))
    assert {param.dtype for param in small.parameters()} == {dtype} and small[0].out_channels == 2


class WrittenOut(nn.Module):
    """Has a size in its code that a smaller network does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.inner, self.out = nn.Linear(2, 4), nn.Linear(4, 3), nn.Linear(3, 1)

    def forward(self, values: Tensor) -> Tensor:
        return self.out(self.inner(self.layer(values).reshape(-1, 4)).relu())


def test_a_size_in_the_code_keeps_the_channels_that_it_counts() -> None:
    net = WrittenOut()
    with torch.no_grad():
        for layer in (net.layer, net.inner):
            layer.weight[1], layer.bias[1] = 0, 0
    small = compact(net, torch.ones(1, 2))
    assert (small.layer.out_features, small.inner.out_features) == (4, 2)


class Moody(nn.Module):
    """Is not the same function twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(2, 2), 0

    def forward(self, values: Tensor) -> Tensor:
        self.calls += 1
        return self.layer(values) * self.calls


def test_a_copy_that_is_another_function_is_not_returned() -> None:
    with pytest.raises(SpecError, match="^compact: Moody: the smaller network would not be the same function .outputs differ by"):
        compact(Moody(), torch.ones(1, 2))


@pytest.mark.parametrize(
    ("example", "shown"),
    [
        (torch.ones(1, 3), r"\(1, 3\)"),
        ((torch.ones(1, 2), torch.ones(1)), r"\(\(1, 2\), \(1,\)\)"),
        ({"image": torch.ones(1, 2)}, "image"),
        (3, "3"),
    ],
)
def test_an_example_that_the_network_cannot_take_is_one_line(example: object, shown: str) -> None:
    with pytest.raises(SpecError, match=rf"^example: .*{shown}.* is not allowed; allowed: one input of the network \([^\n]*$"):
        compact(nn.Linear(2, 2), example)


def test_a_mask_of_another_network_is_one_line() -> None:
    with pytest.raises(SpecError, match=r"^mask: weight of shape \(3, 2\) is not allowed; allowed: .*\(\(2, 2\)\)$"):
        compact(nn.Linear(2, 2), torch.ones(1, 2), {"weight": torch.ones(3, 2, dtype=torch.bool)})


def test_a_mask_without_a_path_is_one_line() -> None:
    net = ready(convolutions(), IMAGE)
    mask = masks.full(masks.prunable(net))
    mask["2.weight"][:] = False
    with pytest.raises(
        CollapseError, match="^compact: Sequential: the mask leaves no path from the input to the output; nothing would be left$"
    ):
        compact(net, IMAGE, mask)


def test_weights_that_are_not_finite_are_one_line() -> None:
    net = nn.Linear(2, 2)
    with torch.no_grad():
        net.weight[0, 0] = float("nan")
    with pytest.raises(SpecError, match="^model: 'Linear' is not allowed; allowed: a network whose outputs for the example are numbers"):
        compact(net, torch.ones(1, 2))


def test_sizes_are_counted() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2)).train()
    image = torch.ones(1, 1, 4, 4)
    # 27 + 6 + 26 parameters; 12 pixels of 9, 24; the norm's 2 * 3 floats and 1 integer of 8 bytes beside them
    assert size(net, image) == Size(59, 12 * 9 + 24, (59 * 4 + 6 * 4 + 8) / 1e6)
    assert net.training
    rows = compaction_table(net, nn.Sequential(nn.Conv2d(1, 1, 4, bias=False)), image)
    assert [row["network"] for row in rows] == ["before", "after", "ratio"]
    assert rows[2]["parameters"] == 59 / 16 and rows[2]["multiply_adds"] == 132 / 16
    assert str(rows).splitlines() == [
        "parameters     59 -> 16 (3.69 times smaller)",
        "multiply-adds  132 -> 16 (8.25 times smaller)",
        "megabytes      0.000268 -> 6.4e-05 MB (4.19 times smaller)",
    ]
