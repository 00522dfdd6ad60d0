"""Scoring sees open what starts closed, and the network is afterwards what it was."""

from contextlib import suppress

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from autosparse.models.criteria.checked import checked
from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.masks.awake import asleep, awake
from autosparse.models.masks.mask import collapsed_layers
from autosparse.models.seeding import generator, scoped


class Scaled(nn.Module):
    """A residual block behind a layer scale, as in ConvNeXt."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.stem, self.block, self.norm, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.gamma, self.token = nn.Parameter(torch.full((8, 1), scale)), nn.Parameter(torch.zeros(1, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x) + self.token
        return self.head(x + self.gamma[:, 0] * self.norm(self.block(x)))


def network(scale: float = 1e-6) -> Scaled:
    with scoped(0, "awake"):
        return Scaled(scale)


@pytest.mark.parametrize(("scale", "names"), [(0.0, ["gamma"]), (1e-6, ["gamma"]), (1e-3, ["gamma"]), (0.1, [])])
def test_scales_of_next_to_nothing_are_found(scale: float, names: list[str]) -> None:
    assert asleep(network(scale)) == names


def test_zero_weights_and_norms_are_found_and_biases_and_tokens_are_not() -> None:
    one = network(1.0)
    for zero in (one.head.weight, one.norm.weight, one.stem.bias):
        nn.init.zeros_(zero)
    assert asleep(one) == ["norm.weight", "head.weight"]


def test_inside_it_is_open_and_afterwards_as_it_was() -> None:
    one = network()
    nn.init.zeros_(one.head.weight)
    before = {name: value.clone() for name, value in one.state_dict().items()}
    drawn = []
    for _ in range(2):
        with suppress(KeyError), awake(one) as names:
            drawn.append(one.head.weight.detach().clone())
            assert names == ["gamma", "head.weight"] and one.gamma.unique().tolist() == [1.0]
            raise KeyError
    assert torch.equal(*drawn) and 0 < float(drawn[0].abs().max()) <= 8**-0.5
    assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())


def test_snip_keeps_weights_of_the_block_behind_a_layer_scale() -> None:
    stream = generator(0, "awake")
    batches = [(torch.randn(32, 4, generator=stream), torch.randint(3, (32,), generator=stream))]
    one = network()
    cross_entropy(one(batches[0][0]), batches[0][1]).backward()
    assert float(one.block.weight.grad.abs().max()) < 1e-5 < float(one.stem.weight.grad.abs().max())  # type: ignore[union-attr]
    snip = checked("snip", CRITERIA["snip"])
    scores = snip.score(one, batches, generator(0), head=True, density=0.3)
    assert collapsed_layers(snip.allocate(scores, 0.3)) == []
