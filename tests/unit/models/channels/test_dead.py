"""Which channels leave: small networks with rows (written) and columns (read) of weights set to zero by hand."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from autosparse.models.channels.dead import dead_channel_parameters, dead_channels
from autosparse.models.masks import mask as masks
from autosparse.models.masks.mask import Mask


def cut_off(network: nn.Module, rows: Mapping[str, Iterable[int]] = {}, columns: Mapping[str, Iterable[int]] = {}) -> Mask:
    """The full mask without rows and columns of layers."""
    mask = masks.full(masks.prunable(network))
    for name, indices in rows.items():
        mask[f"{name}.weight"][list(indices)] = False
    for name, indices in columns.items():
        mask[f"{name}.weight"][:, list(indices)] = False
    return mask


def left(network: nn.Module, mask: Mask, example: Tensor, *tensors: str, axis: int = 0) -> list[list[int]]:
    """The indices that stay on the first axis of tensors."""
    dead = dead_channels(network, example, mask)
    return [dead.alive(name, axis).nonzero().flatten().tolist() for name in tensors]


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))


def test_units_that_nothing_writes_or_nothing_reads_leave() -> None:
    net = mlp()
    mask = cut_off(net, rows={"0": [0]}, columns={"2": [2]})
    assert left(net, mask, torch.ones(1, 2), "0.weight", "0.bias") == [[1, 3], [1, 3]]
    assert left(net, mask, torch.ones(1, 2), "2.weight") == [[0, 1, 2]]  # outputs of the network stay, read or not
    assert left(net, mask, torch.ones(1, 2), "2.weight", axis=1) == [[1, 3]]


def test_what_hangs_on_dead_units_alone_is_dead() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
    mask = cut_off(net, rows={"0": [0]}, columns={"6": [1]})
    mask["2.weight"][2, [1, 2]] = False  # unit 2 of the second layer reads the dead unit only
    mask["4.weight"][[0, 2], 0] = False  # unit 0 of the second layer feeds only the third layer's unit that nobody reads
    assert left(net, mask, torch.ones(1, 2), "0.weight", "2.weight", "4.weight") == [[1, 2], [1], [0, 2]]


def test_a_layer_keeps_its_last_channel() -> None:
    net = mlp()
    assert left(net, cut_off(net, rows={"0": range(4)}), torch.ones(1, 2), "0.weight") == [[0]]


def test_a_full_mask_removes_nothing() -> None:
    net = mlp()
    assert not dead_channels(net, torch.ones(1, 2), masks.full(masks.prunable(net))).removed.any()


class Residual(nn.Module):
    """A stem, two blocks that add to it, and a reader."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.out = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        stream = self.stem(images)
        stream = stream + self.one(functional.relu(stream))
        stream = stream + self.two(functional.relu(stream))
        return self.out(stream.mean((2, 3)))


def test_a_channel_of_a_stream_leaves_when_no_block_writes_it() -> None:
    net, image = Residual(), torch.ones(1, 1, 4, 4)
    mask = cut_off(net, rows={"stem": [0, 1], "one": [0, 1], "two": [1, 2]})
    assert left(net, mask, image, "stem.weight", "one.weight", "two.weight") == [[0, 2, 3]] * 3  # block two writes 0


def test_a_channel_of_a_stream_leaves_when_nobody_reads_it() -> None:
    net, image = Residual(), torch.ones(1, 1, 4, 4)
    mask = cut_off(net, columns={"out": [0, 3], "one": [0], "two": [0, 3]})
    assert left(net, mask, image, "stem.weight") == [[1, 2, 3]]  # block one reads 3


class Concatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.norm, self.out = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 3, 1), nn.BatchNorm2d(5), nn.Conv2d(5, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.out(self.norm(torch.cat([self.one(images), self.two(images)], 1)))


def test_channels_are_followed_through_a_concatenation() -> None:
    net, image = Concatenated(), torch.ones(2, 1, 2, 2)
    mask = cut_off(net, rows={"one": [1]}, columns={"out": [2]})
    assert left(net, mask, image, "one.weight", "two.weight", "norm.running_var") == [[0], [1, 2], [0, 3, 4]]


def test_channels_are_followed_through_flattening() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 2))
    mask = cut_off(net, rows={"0": [1]})
    assert left(net, mask, torch.ones(1, 1, 4, 4), "4.weight", axis=1) == [[0, 1, 2, 3, 8, 9, 10, 11]]
    mask = cut_off(net, columns={"4": [0, 1, 2, 3, 8, 9, 10]})  # one pixel of channel 2 is read
    assert left(net, mask, torch.ones(1, 1, 4, 4), "0.weight") == [[1, 2]]


class Gated(nn.Module):
    """Squeeze and excite around a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.depth = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
        self.squeeze, self.excite, self.out = nn.Linear(4, 2), nn.Linear(2, 4), nn.Conv2d(4, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        inner = self.depth(functional.relu(self.wide(images)))
        gate = torch.sigmoid(self.excite(functional.relu(self.squeeze(inner.mean((2, 3))))))
        return self.out(inner * gate[:, :, None, None])


def test_a_gate_does_not_open_what_is_zero() -> None:
    net, image = Gated(), torch.ones(1, 1, 4, 4)
    mask = cut_off(net, rows={"depth": [1]})
    assert left(net, mask, image, "wide.weight", "depth.weight", "excite.weight") == [[0, 2, 3]] * 3
    assert left(net, mask, image, "squeeze.weight", "out.weight", axis=1) == [[0, 2, 3]] * 2
    mask = cut_off(net, rows={"excite": [1]})  # a gate of one half
    assert left(net, mask, image, "wide.weight") == [[0, 1, 2, 3]]


def test_groups_of_a_convolution_leave_whole_or_evenly() -> None:
    net = nn.Sequential(nn.Conv2d(1, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 1, groups=3), nn.ReLU(), nn.Conv2d(6, 1, 1))
    image = torch.ones(1, 1, 2, 2)
    assert left(net, cut_off(net, rows={"2": [2, 3]}), image, "0.weight", "2.weight") == [[0, 1, 4, 5]] * 2
    assert left(net, cut_off(net, rows={"2": [0, 3, 4]}), image, "2.weight") == [[1, 2, 5]]
    assert left(net, cut_off(net, rows={"2": [0, 3]}), image, "2.weight") == [[0, 1, 2, 3, 4, 5]]


def test_groups_of_a_norm_leave_whole() -> None:
    net = nn.Sequential(nn.Conv2d(1, 6, 1), nn.GroupNorm(3, 6), nn.ReLU(), nn.Conv2d(6, 1, 1))
    image = torch.ones(1, 1, 2, 2)
    assert left(net, cut_off(net, rows={"0": [0, 1, 2]}), image, "0.weight", "1.bias") == [[2, 3, 4, 5]] * 2
    assert left(net, cut_off(net, columns={"3": [0, 2, 3]}), image, "0.weight") == [[0, 1, 4, 5]]


def test_what_a_layer_norm_sees_stays_and_what_it_does_not_see_leaves() -> None:
    net = nn.Sequential(nn.Linear(2, 4), nn.LayerNorm(4), nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 4))
    mask = cut_off(net, rows={"0": [0], "2": [1]})
    assert left(net, mask, torch.ones(1, 2), "0.weight", "2.weight") == [[0, 1, 2, 3], [0, 2]]


class Shuffled(nn.Module):
    """Two halves of channels are mixed as in ShuffleNet, and only one of them goes on through a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer, self.out = nn.Conv2d(1, 6, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(6, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        one, other = self.stem(images).chunk(2, 1)
        both = torch.cat([one, self.layer(other)], 1)
        mixed = both.view(len(both), 2, both.shape[1] // 2, *both.shape[2:]).transpose(1, 2)
        return self.out(mixed.reshape(both.shape))


def test_halves_that_are_shuffled_lose_the_same_places() -> None:
    net, image = Shuffled(), torch.ones(1, 1, 2, 2)
    assert left(net, cut_off(net, rows={"stem": [0, 1, 3], "layer": [0]}), image, "stem.weight", "layer.weight") == [[1, 2, 4, 5], [1, 2]]
    assert left(net, cut_off(net, rows={"stem": [0, 1]}), image, "stem.weight") == [[0, 1, 2, 3, 4, 5]]


class Twice(nn.Module):
    """One layer in two places: its channels must be dead in both."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer, self.out = nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 1)

    def forward(self, values: Tensor) -> Tensor:
        return self.out(torch.tanh(self.layer(torch.tanh(self.layer(self.stem(values))))))


def test_a_layer_that_is_used_twice_is_cut_where_both_uses_are_dead() -> None:
    net = Twice()
    mask = cut_off(net, rows={"layer": [0]}, columns={"layer": [0], "out": [0, 1]})
    assert left(net, mask, torch.ones(1, 2), "stem.weight", "layer.weight", "out.weight") == [[1, 2], [1, 2], [0]]


class Scaled(nn.Module):
    """A layer scale and a shift by channel, as parameters that no module owns."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.Conv2d(1, 3, 1), nn.Conv2d(3, 1, 1)
        self.scale, self.shift = nn.Parameter(torch.zeros(3, 1, 1)), nn.Parameter(torch.zeros(1, 3, 2, 2))

    def forward(self, images: Tensor) -> Tensor:
        return self.out(self.layer(images) * self.scale + self.shift)


def test_parameters_beside_channels_belong_to_them() -> None:
    net = Scaled()
    found = dead_channel_parameters(net, cut_off(net, rows={"layer": [1]}), torch.ones(1, 1, 2, 2))
    assert found["scale"].flatten().tolist() == [False, True, False]
    assert found["shift"].sum((0, 2, 3)).tolist() == [0, 4, 0]
    assert set(found) == {"layer.weight", "layer.bias", "out.weight", "scale", "shift"}


def test_entries_to_hold_are_rows_and_columns_of_dead_channels() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))
    found = dead_channel_parameters(net, cut_off(net, rows={"0": [2]}), torch.ones(4, 2))
    assert {name: entries.nonzero().tolist() for name, entries in found.items()} == {
        "0.weight": [[2, 0], [2, 1]],
        "0.bias": [[2]],
        "1.weight": [[2]],
        "1.bias": [[2]],
        "3.weight": [[0, 2], [1, 2]],
    }


def test_entries_of_grouped_weights_are_counted_within_the_group() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1, groups=2, bias=False), nn.Conv2d(2, 1, 1))
    found = dead_channel_parameters(net, cut_off(net, rows={"0": [0, 3]}), torch.ones(1, 1, 2, 2))
    assert found["1.weight"].flatten(1).tolist() == [[True, False], [False, True]]


class Written(nn.Module):
    """Does what cannot be followed: writes into slices, sorts along channels."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer, self.out, self.kind = nn.Linear(2, 4), nn.Linear(4, 1), kind

    def forward(self, values: Tensor) -> Tensor:
        hidden = self.layer(values)
        if self.kind == "sorted":
            return self.out(hidden.sort(1).values)
        room = torch.zeros_like(hidden)
        room[:, :2] = hidden[:, 2:]
        return self.out(room)


def test_what_is_not_understood_stays_whole() -> None:
    for kind in ("sorted", "slices"):
        net = Written(kind)
        assert left(net, cut_off(net, rows={"layer": [1]}), torch.ones(1, 2), "layer.weight") == [[0, 1, 2, 3]], kind
