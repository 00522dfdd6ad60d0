"""The rules of paths: flow through every kind of function, on paper."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autosparse.models import seeding
from autosparse.models.criteria.synaptic_flow import flow
from autosparse.models.masks import mask as masks
from autosparse.models.masks.flowing import Flow
from autosparse.models.masks.gates import effective, effective_density
from autosparse.models.masks.linearised import linearised, opened, settled
from autosparse.models.masks.mask import prunable


class Net(nn.Module):
    """Linear layers of one weight each on one number; what `combine` makes of their outputs is the output."""

    def __init__(self, combine: Callable[..., Tensor], *weights: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in weights)
        for layer, weight in zip(self.layers, weights, strict=True):
            nn.init.constant_(layer.weight, weight)
        self.scale = nn.Parameter(torch.full((1,), 1e-6))
        self.combine = combine

    def forward(self, inputs: Tensor) -> Tensor:
        return self.combine(self, *(layer(inputs) for layer in self.layers))


def flows(combine: Callable[..., Tensor], *weights: float, rules: Flow | None = None) -> list[float]:
    """The flow through each weight for an input (1, 1, 1) of one."""
    linear = linearised(Net(combine, *weights))
    found = flow(linear, prunable(linear), torch.ones(1, 1, 1, dtype=torch.float64), rules)
    return [float(value) for value in found.values()]


IDENTITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu6": functional.relu6,
    "gelu": functional.gelu,
    "silu in place": lambda x: functional.silu(x * 1.0, inplace=True),
    "hardswish": functional.hardswish,
    "tanh": torch.tanh,
    "method": lambda x: x.clone().sigmoid_(),
    "hard gate alone": functional.hardsigmoid,
    "layer norm": lambda x: functional.layer_norm(x, (1,)),
    "group norm": lambda x: functional.group_norm(x, 1),
    "rms norm by hand": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
    "unit length": lambda x: functional.normalize(x, dim=-1),
    "square": lambda x: x**2,
    "swish by hand": lambda x: x * torch.sigmoid(x),
    "cast": lambda x: x.float().half(),
    "negated": lambda x: -x,
    "minus a constant": lambda x: x - torch.zeros(1),
    "dropout": lambda x: functional.dropout(x, 0.5, training=True),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_what_is_bounded_or_a_norm_lets_everything_through(name: str) -> None:
    assert flows(lambda net, x: IDENTITIES[name](x), -300.0) == [300.0]


def test_a_norm_by_hand_with_its_mean_taken_off_still_lets_through() -> None:
    # x - mean counts as x + mean, over its deviation as that
    assert flows(lambda net, x: (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt(), 3.0) == [6.0]


@pytest.mark.parametrize("gate", [torch.sigmoid, functional.hardsigmoid, functional.softplus, lambda x: x])
def test_gate_and_gated_carry_half_each(gate: Callable[[Tensor], Tensor]) -> None:
    assert flows(lambda net, x, y: x * gate(y), 4.0, 9.0) == [3.0, 3.0]  # of sqrt(4 * 9) = 6


def test_a_gate_in_place_is_the_same_gate() -> None:
    def gated(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        x *= y.sigmoid()
        return x

    assert flows(gated, 4.0, 9.0) == [3.0, 3.0]


def test_a_gated_linear_unit_is_a_gate() -> None:
    assert flows(lambda net, x, y: functional.glu(torch.cat([x, y], -1)), 4.0, 9.0) == [3.0, 3.0]


def test_a_dead_gate_stops_the_flow_without_a_nan() -> None:
    assert flows(lambda net, x, y: x * (y * 0.0).sigmoid(), 4.0, 9.0) == [0.0, 0.0]


@pytest.mark.parametrize("scale", [1e-6, 0.0])
def test_a_layer_scale_is_open_and_a_constant_is_what_it_is(scale: float) -> None:
    def scaled(net: nn.Module, x: Tensor) -> Tensor:
        return x * net.scale.view(1, 1) * torch.tensor([-0.5])

    net = Net(scaled, 4.0)
    nn.init.constant_(net.scale, scale)
    linear = linearised(net)
    assert float(flow(linear, prunable(linear), torch.ones(1, 1, 1).double())["layers.0.weight"]) == 2.0


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.softmax(query @ key.mT, -1) @ value


@pytest.mark.parametrize("attention", [attend, functional.scaled_dot_product_attention])
def test_values_carry_half_of_an_attention_queries_and_keys_a_quarter(attention: Callable[..., Tensor]) -> None:
    # of one token: sqrt(2 * 8) = 4, and sqrt(4 * 4) = 4 with the value
    assert flows(lambda net, q, k, v: attention(q, k, v), 2.0, 8.0, 4.0) == [1.0, 1.0, 2.0]


def test_a_softmax_over_tokens_averages_them() -> None:
    def over_two(net: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k.expand(1, 2, 1), v.expand(1, 2, 1))

    assert flows(over_two, 2.0, 8.0, 4.0) == [1.0, 1.0, 2.0]


@pytest.mark.parametrize("closed", [-100.0, -1e4, -math.inf])
def test_a_masked_token_is_not_let_through(closed: float) -> None:
    def masked(net: nn.Module, q: Tensor, k: Tensor, v: Tensor, other: Tensor) -> Tensor:
        weights = (q @ torch.cat([k, k], 1).mT) + torch.tensor([[0.0, closed]])
        return torch.softmax(weights, -1) @ torch.cat([v, other], 1)

    found = flows(masked, 2.0, 8000.0, 4.0, 4.0)
    assert found[2] > 0 and found[3] == 0.0


def test_a_branch_does_not_starve_beside_embeddings_where_flow_is_balanced() -> None:
    embeddings, shift = torch.full((1, 1, 1), 7.0), torch.full((1,), 7.0)
    assert flows(lambda net, branch: branch + embeddings, 1.0) == [1.0]
    assert flows(lambda net, branch: embeddings + branch, 1.0, rules=Flow(balanced=True)) == [4.0]  # the mean of 1 and 7
    assert flows(lambda net, branch: branch + shift, 1.0, rules=Flow(balanced=True)) == [1.0]  # no branch of its own


def test_torchs_own_attention_is_looked_into() -> None:
    with seeding.scoped(0, "test"):
        network = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    linear = linearised(network)
    found = flow(linear, prunable(linear), torch.ones(1, 5, 8).double())
    total = float(found["linear2.weight"].sum())
    assert all(float(values.sum()) > 0.01 * total for values in found.values())
    packed = found["self_attn.in_proj_weight"].sum(1)
    assert all(float(part.sum()) > 0 for part in packed.split(8))
    assert effective_density(network, masks.full(prunable(network)), (5, 8)) == 1.0


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_of_any_width_let_through(layer: type[nn.RNNBase]) -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = layer(8, 256, num_layers=2, batch_first=True, bidirectional=True), nn.Linear(512, 2)

        def forward(self, rows: Tensor) -> Tensor:
            return self.head(self.rnn(rows)[0].mean(1))

    network = Reader()
    linear = linearised(network)
    found = flow(linear, prunable(linear), torch.ones(1, 6, 8).double())
    total = float(found["head.weight"].sum())
    assert all(float(values.sum()) > 1e-3 * total for values in found.values())
    assert effective_density(network, masks.full(prunable(network)), (6, 8)) > 0.99


def test_a_network_that_feeds_back_to_itself_keeps_its_sigmoids() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.back = nn.Linear(1, 1, bias=False)
            nn.init.ones_(self.back.weight)

        def forward(self, inputs: Tensor) -> Tensor:
            return torch.tanh(self.back(torch.tanh(self.back(inputs))))

    linear = linearised(Cell())
    ones = torch.ones(1, 1, dtype=torch.float64)
    rules = settled(linear, ones)
    assert rules.recurrent and not settled(linearised(Net(lambda net, x: x.tanh(), 1.0)), ones).recurrent
    inner = math.tanh(1.0)
    outer = 1 - math.tanh(inner) ** 2
    expected = outer * (inner + (1 - inner**2))
    assert float(flow(linear, prunable(linear), ones, rules)["back.weight"]) == pytest.approx(expected, rel=1e-12)


class WithAuxiliary(nn.Module):
    """An auxiliary head that runs in training alone, with a dropout in it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(2, 4), nn.Linear(4, 3)
        self.auxiliary = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.9), nn.Linear(4, 3))

    def forward(self, inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        hidden = self.body(inputs).relu()
        return (1e6 * self.head(hidden), self.auxiliary(hidden)) if self.training else self.head(hidden)


def test_auxiliary_heads_count_like_the_main_one() -> None:
    linear = linearised(WithAuxiliary())
    ones = torch.ones(1, 2, dtype=torch.float64)
    found = flow(linear, prunable(linear), ones, settled(linear, ones))
    assert float(found["head.weight"].sum()) == pytest.approx(float(found["auxiliary.2.weight"].sum()), rel=0.5)
    assert linear.training and not linear.auxiliary[1].training


def test_what_is_zero_at_the_start_is_open() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    nn.init.zeros_(network[1].weight)
    nn.init.zeros_(network[3].weight)
    linear = linearised(network)
    assert linear[1].weight.tolist() == [1.0] * 4 and linear[3].weight.unique().tolist() == [0.25]
    assert torch.equal(opened(torch.tensor([[0.0, 2.0]])), torch.tensor([[0.0, 2.0]]))


class Squeezed(nn.Module):
    """A convolution under a squeeze-excite gate, with a class token and a position embedding that are added."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.down, self.up = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)
        self.position, self.head = nn.Parameter(torch.randn(1, 4, 1, 1)), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        hidden = functional.gelu(self.conv(images))
        gate = self.up(functional.silu(self.down(hidden.mean((2, 3), keepdim=True)))).sigmoid()
        return self.head((hidden * gate + self.position).mean((2, 3)))


def test_gates_are_open_where_paths_are_told() -> None:
    network = Squeezed()
    mask = masks.full(prunable(network))
    assert effective_density(network, mask, (1, 2, 2)) == 1.0
    shut = effective(network, mask | {"up.weight": torch.zeros_like(mask["up.weight"])}, (1, 2, 2))
    assert masks.collapsed_layers(shut) == ["down.weight", "up.weight"]
    nothing = effective(network, mask | {"conv.weight": torch.zeros_like(mask["conv.weight"])}, (1, 2, 2))
    assert masks.kept(nothing) == 0  # a position embedding is no input
