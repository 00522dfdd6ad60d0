"""Orders of units and how many of them a network can afford, by hand."""

import math

import pytest
import torch
from torch import nn

from autosparse.models.channels.units import Units, costs_by_weight, price, units_of
from autosparse.models.channels.widths import (
    FASTEST,
    affordable,
    order_by_rates,
    order_within,
    rates,
    shuffled,
    survival,
    unit_means,
    widths_by_density,
)
from autosparse.models.errors import CollapseError
from autosparse.models.masks import mask as masks


def chain() -> nn.Sequential:
    """Units 0 to 3 of the first layer and 4 to 7 of the second, two inputs and one output."""
    return nn.Sequential(nn.Linear(2, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 1, bias=False))


def units() -> Units:
    return units_of(chain(), torch.ones(1, 2))


def weights_of(found: Units) -> dict[str, float]:
    return costs_by_weight({}, chain(), "weights")


def test_survival_is_the_logarithm_of_the_share_from_the_top() -> None:
    found = survival({"a": torch.tensor([[3.0, 1.0]]), "b": torch.tensor([[2.0], [0.0]])})
    assert found["a"].tolist() == [pytest.approx([-math.log(1 / 8), -math.log(5 / 8)])]
    assert found["b"].flatten().tolist() == pytest.approx([-math.log(3 / 8), -math.log(7 / 8)])


def test_the_mean_of_a_unit_is_over_all_weights_that_write_or_read_it() -> None:
    values = {"0.weight": torch.arange(8.0).view(4, 2), "2.weight": torch.ones(4, 4), "4.weight": torch.zeros(1, 4)}
    means = unit_means(units(), values).tolist()
    assert means[:4] == pytest.approx([(1 + 4) / 6, (5 + 4) / 6, (9 + 4) / 6, (13 + 4) / 6])
    assert means[4:] == pytest.approx([4 / 5] * 4)


def test_widths_are_roots_of_densities() -> None:
    mask = masks.full(masks.prunable(chain()))
    mask["0.weight"][:2] = False  # density 1/2
    mask["2.weight"][:, :3] = False  # 1/4
    assert widths_by_density(units(), mask) == pytest.approx([math.sqrt(math.sqrt(0.5 * 0.25)), math.sqrt(math.sqrt(0.25 * 1))])


def test_groups_are_filled_in_proportion_to_their_widths() -> None:
    scores = torch.tensor([0.0, 1, 2, 3, 0, 1, 2, 3])
    assert order_within(units(), scores, [1, 1]) == [3, 7, 2, 6, 1, 5, 0, 4]
    assert order_within(units(), scores, [1, 2])[:4] == [7, 3, 6, 5]  # places 1/8, 3/8, 5/8 of twice the width come as 1/16, 3/16, 5/16


def test_what_is_affordable_is_the_longest_first_part_and_what_still_fits() -> None:
    found = units()
    whole = weights_of(found)  # 8 + 16 + 4 = 28
    stays = affordable(found, [3, 7, 2, 6, 1, 5, 0, 4], lambda some: price(found, whole, some), 0.5)
    # with 2 and 2 units 4 + 4 + 2 = 10, with 3 and 2 it is 6 + 6 + 2 = 14, the half
    assert stays.nonzero().flatten().tolist() == [1, 2, 3, 6, 7]
    less = affordable(found, [3, 7, 2, 6, 1, 5, 0, 4], lambda some: price(found, whole, some), 13.5 / 28)
    # 3 and 2 do not fit; 2 and 3 do: 4 + 6 + 3 = 13
    assert less.nonzero().flatten().tolist() == [2, 3, 5, 6, 7]


def test_units_that_the_order_does_not_name_are_gone() -> None:
    found = units()
    whole = weights_of(found)
    assert affordable(found, [3, 7], lambda some: price(found, whole, some), 1.0).nonzero().flatten().tolist() == [3, 7]


def test_one_channel_of_each_layer_must_be_affordable() -> None:
    found = units()
    whole = weights_of(found)
    with pytest.raises(CollapseError, match=r"density: 0\.1 is not allowed; allowed: at least the price of one channel per layer"):
        affordable(found, list(range(8)), lambda some: price(found, whole, some), 0.1)  # 2 + 1 + 1 = 4 of 28


def test_the_structured_shuffle_permutes_units_with_what_lies_inside() -> None:
    found = units()
    mask = found.mask(chain(), torch.tensor([True, False, False, True, True, True, False, True]))
    mask["2.weight"][0, 3] = False
    moved = [shuffled(found, mask, torch.Generator().manual_seed(seed)) for seed in range(5)]
    for other in moved:
        assert masks.kept(other) == masks.kept(mask)
        alive = [int(other[name].any(1).count_nonzero()) for name in ("0.weight", "2.weight")]
        assert alive == [2, 3] and torch.equal(other["0.weight"].any(1), other["2.weight"].any(0))
        assert torch.equal(other["2.weight"].any(1), other["4.weight"][0])
    assert len({masks.checksum(other) for other in moved}) > 1


def test_rates_give_back_the_mean_share_of_survived_rounds() -> None:
    found = units()
    survived = {"0.weight": torch.full((4, 2), 0.5), "2.weight": torch.full((4, 4), 0.5), "4.weight": torch.full((1, 4), 0.1)}
    fast, slow = rates(found, survived)[1], rates(found, survived)[0]
    assert (1 - math.exp(-slow)) / slow == pytest.approx(0.5)
    assert (1 - math.exp(-fast)) / fast == pytest.approx((16 * 0.5 + 4 * 0.1) / 20)
    assert rates(found, {name: value * 0 for name, value in survived.items()}) == pytest.approx([FASTEST] * 2)


def test_a_group_with_twice_the_rate_is_the_square_of_the_other() -> None:
    order = order_by_rates(units(), torch.tensor([0.0, 1, 2, 3, 0, 1, 2, 3]), [1.0, 2.0])
    # places 1/8, 3/8, 5/8, 7/8 leave at log(1/place) = 2.08, .98, .47, .13, in the second group at half of it
    assert order == [3, 7, 2, 6, 1, 5, 0, 4]
