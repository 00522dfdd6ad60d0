"""Dual averaging: its threshold, its closed-form ends, SGD as the case c = 0, and taking up again."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from autosparse.models.errors import SpecError
from autosparse.models.methods.dual_averaging import DualAveraging, Family, GroupThreshold, densities, over_network, soft_threshold


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # noqa: TID251
        return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).to(
            memory_format=torch.channels_last  # type: ignore[call-overload]
        )


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Steps at rates that change, on batches that depend on the step alone."""
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (1 + step % 7)
        images, labels = torch.randn(8, 2, 4, 4, generator=stream(step)), torch.randint(0, 3, (8,), generator=stream(step))
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(images.contiguous(memory_format=torch.channels_last)), labels).backward()
        optimizer.step()


def same_bits(left: nn.Module, right: nn.Module) -> bool:
    return all(torch.equal(tensor, right.state_dict()[name]) for name, tensor in left.state_dict().items())


def descend(start: Tensor, slope: Callable[[Tensor], Tensor], steps: int, prox: GroupThreshold | None = None) -> tuple[Tensor, Tensor]:
    """(w, v) after full-gradient steps at lr .1, c .005, mu .6."""
    weight = nn.Parameter(start.clone())
    optimizer = DualAveraging([weight], lr=0.1, c=0.005, mu=0.6, prox=prox)
    weight.grad = torch.zeros_like(start)
    for _ in range(steps):
        weight.grad.copy_(slope(weight))
        optimizer.step()
    return weight.detach(), optimizer.state[weight]["accumulator"]


def threshold(steps: int) -> float:
    return 0.005 * 0.1 ** (0.5 + 0.6) * steps**0.6


def test_flat_coordinates_are_the_shrunk_start_and_sharp_ones_lag_behind_their_optimum() -> None:
    """Diagonal quadratic: loss = sum of h_j * (w_j - a_j) ** 2 / 2, the first three h are 0."""
    start = torch.tensor([1.5, -1.2, 0.2, 0.1, -2.0, 0.0], dtype=torch.float64)
    curvature = torch.tensor([0.0, 0.0, 0.0, 1.0, 2.0, 5.0], dtype=torch.float64)
    best = torch.tensor([0.0, 0.0, 0.0, 1.0, -0.5, 0.7], dtype=torch.float64)
    n = 50_000
    with torch.no_grad():
        weight, _ = descend(start, lambda w: curvature * (w - best), n)
    assert threshold(n) == pytest.approx(0.2620, abs=1e-4)
    g = threshold(n)
    assert weight[:3].tolist() == pytest.approx([1.5 - g, -(1.2 - g), 0.0], abs=1e-12)
    assert float(weight[2]) == 0.0
    lag = (threshold(n + 1) - g) / (0.1 * curvature[3:])  # the accumulator has to keep up with the threshold
    assert torch.allclose(weight[3:], best[3:] - best[3:].sign() * lag, rtol=0, atol=1e-8)
    assert float(lag.min()) > 1e-6  # so the line above tells the lag from the optimum itself


def test_flat_coordinates_equal_the_soft_threshold_of_the_start_exactly() -> None:
    start = torch.tensor([1.5, -1.2, 0.3, 0.0])
    weight = nn.Parameter(start.clone())
    optimizer = DualAveraging([weight], lr=0.1, c=0.05, mu=0.6)
    for _ in range(3000):
        weight.grad = torch.zeros(4)
        optimizer.step()
    g = torch.tensor(optimizer.threshold(), dtype=torch.float32)
    assert weight.tolist() == [float(start[0] - g), float(start[1] + g), 0.0, 0.0]
    assert optimizer.threshold() == pytest.approx(0.05 * 0.1**1.1 * 3000**0.6, rel=1e-12)


@pytest.mark.parametrize("keywords", [{}, {"foreach": False}, {"fused": True}])
def test_without_a_threshold_it_is_sgd_bit_for_bit(keywords: dict[str, bool]) -> None:
    plain, averaged = network(), network()
    train(plain, torch.optim.SGD(plain.parameters(), lr=0.1, **keywords), range(500))
    train(averaged, DualAveraging(averaged.parameters(), lr=0.1, c=0.0, mu=0.6), range(500))
    assert same_bits(plain, averaged)
    assert not same_bits(plain, network())


def test_with_a_threshold_only_the_chosen_parameters_have_zeros() -> None:
    module = network()
    weights = [module[0].weight, module[4].weight]  # type: ignore[index]
    optimizer = over_network(module, weights, lr=0.1, c=0.02, mu=0.8)
    train(module, optimizer, range(100))
    zeros = {name: int((param == 0).sum()) for name, param in module.named_parameters()}
    assert zeros["0.weight"] > 0 and zeros["4.weight"] > 0
    assert all(count == 0 for name, count in zeros.items() if name not in ("0.weight", "4.weight"))
    assert [group["threshold"] > 0 for group in optimizer.param_groups] == [True, False]
    left = 72 + 48 - zeros["0.weight"] - zeros["4.weight"]
    assert densities(module, head=True) == {"density": left / 120, "density_all": (left + 4 + 8 + 3) / (120 + 4 + 8 + 3)}
    assert densities(module, head=False)["density"] == (72 - zeros["0.weight"]) / 72


def test_taken_up_from_its_state_dict_it_goes_the_same_way_bit_for_bit() -> None:
    def begin(module: nn.Module) -> DualAveraging:
        return over_network(module, [module[0].weight, module[4].weight], lr=0.1, c=0.02, mu=0.8)  # type: ignore[index]

    whole, half, again = network(), network(), network(1)
    train(whole, begin(whole), range(60))
    first = begin(half)
    train(half, first, range(25))
    second = begin(again)
    again.load_state_dict(half.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(again, second, range(25, 60))
    assert same_bits(whole, again)
    train(half, begin(half), range(25, 60))  # without the state: another way
    assert not same_bits(whole, half)


def test_the_state_is_there_before_the_first_step_in_the_layout_of_its_parameter() -> None:
    module = network()
    optimizer = DualAveraging(module.parameters(), lr=0.1, c=0.01, mu=0.6)
    state = optimizer.state_dict()
    assert [torch.equal(state["state"][index]["accumulator"], param) for index, param in enumerate(module.parameters())] == [True] * 6
    assert optimizer.state[module[0].weight]["accumulator"].stride() == module[0].weight.stride()  # type: ignore[index]
    assert module[0].weight.stride() != (18, 9, 3, 1)  # type: ignore[index]
    assert (state["param_groups"][0]["step"], state["param_groups"][0]["threshold"]) == (0, 0.0)


def test_the_threshold_grows_by_the_rate_of_each_step() -> None:
    """mu = 1/2: each step adds c * lr * (sqrt(n) - sqrt(n - 1)); with c = 1 and square steps the numbers are on paper."""
    optimizer = DualAveraging([nn.Parameter(torch.ones(1))], lr=0.5, c=1.0, mu=0.5)
    root2, root3 = math.sqrt(2), math.sqrt(3)
    rates = (0.5, 0.5, 0.1, 0.2)
    table = [0.5, 0.5 * root2, 0.5 * root2 + 0.1 * (root3 - root2), 0.5 * root2 + 0.1 * (root3 - root2) + 0.2 * (2 - root3)]
    for rate, expected in zip(rates, table, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        assert optimizer.threshold() == pytest.approx(expected, rel=1e-14)
    assert optimizer.threshold() == pytest.approx(0.7924803, abs=1e-7)


def test_a_parameter_without_a_gradient_shrinks_from_the_first_step() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -0.25]))
    optimizer = DualAveraging([weight], lr=1.0, c=0.5, mu=0.5)
    optimizer.step()
    assert weight.tolist() == [0.5, 0.0]
    assert optimizer.step(lambda: 7.0) == 7.0


def test_the_soft_threshold_on_paper() -> None:
    point = torch.empty(6)
    soft_threshold([point], [torch.tensor([3.0, -3.0, 1.0, -1.0, 0.5, math.nan])], 1.0)
    assert point[:5].tolist() == [2.0, -2.0, 0.0, 0.0, 0.0]
    assert point[5].isnan()


def test_groups_of_one_are_the_soft_threshold() -> None:
    values = torch.randn(1000, generator=stream(0), dtype=torch.float64)
    scalar, group = torch.empty_like(values), torch.empty_like(values)
    soft_threshold([scalar], [values], 0.7)
    GroupThreshold([Family(members=((0, 0),))])([group], [values], 0.7)
    assert torch.allclose(scalar, group, rtol=0, atol=1e-15)
    assert torch.equal(scalar == 0, group == 0) and 0 < int((group == 0).sum()) < 1000


def test_three_and_four_make_a_group_of_five() -> None:
    weight, scale = torch.tensor([[3.0, 0.0], [0.0, 0.3]]), torch.tensor([4.0, 0.4])
    points = [torch.empty(2, 2), torch.empty(2)]
    GroupThreshold([Family(members=((0, 0), (1, 0)), weight=2.0)])(points, [weight, scale], 0.5)
    assert torch.allclose(points[0], torch.tensor([[2.4, 0.0], [0.0, 0.0]]))  # 5 loses 1: a fifth of all; 0.5 is below 1
    assert torch.allclose(points[1], torch.tensor([3.2, 0.0]))
    assert points[1][1] == 0 and points[0][1, 1] == 0


def test_the_prox_of_groups_meets_the_conditions_of_its_minimum() -> None:
    """w minimises norm(w - v)**2 / 2 + t * sum of norm(w_g): v_g - w_g = t * w_g / norm(w_g), or w_g = 0 and norm(v_g) <= t."""
    filters = torch.randn(40, 3, 2, 2, generator=stream(1), dtype=torch.float64).to(memory_format=torch.channels_last)
    columns = torch.randn(5, 30, generator=stream(2), dtype=torch.float64)
    points = [torch.empty_like(filters), torch.empty_like(columns)]
    t = 2.8
    GroupThreshold([Family(members=((0, 0),)), Family(members=((1, 1),))])(points, [filters, columns], t)
    assert points[0].stride() == filters.stride()
    zero = 0
    for w, v in [*zip(points[0], filters, strict=True), *zip(points[1].T, columns.T, strict=True)]:
        if w.any():
            assert torch.allclose(v - w, t * w / w.norm(), rtol=0, atol=1e-15)
        else:
            assert float(v.norm()) <= t
            zero += 1
    assert 0 < zero < 70


def test_a_flat_group_vanishes_and_a_sharp_one_stays_with_its_lag() -> None:
    """Loss = h * norm(w_1 - a) ** 2 / 2 of two groups of two; the first is flat and begins with norm 0.13."""
    start = torch.tensor([[0.05, 0.12], [0.6, -0.9]], dtype=torch.float64)
    best = torch.tensor([0.6, 0.8], dtype=torch.float64)
    n, h = 20_000, 2.0
    with torch.no_grad():
        pull = torch.tensor([[0.0], [h]], dtype=torch.float64)
        weight, accumulator = descend(start, lambda w: pull * (w - best), n, GroupThreshold([Family(members=((0, 0),))]))
    assert torch.equal(accumulator[0], start[0])  # no gradient, no move
    assert threshold(n) == pytest.approx(0.15121, abs=1e-5) and weight[0].tolist() == [0.0, 0.0]  # above 0.13
    lag = (threshold(n + 1) - threshold(n)) / (0.1 * h)
    assert torch.allclose(weight[1], best * (1 - lag), rtol=0, atol=1e-8) and lag > 1e-5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": -0.1}, "lr: -0.1 is not allowed; allowed: >= 0"),
        ({"c": -1}, "c: -1 is not allowed; allowed: >= 0"),
        ({"mu": 1.0}, "mu: 1.0 is not allowed; allowed: > 0 and < 1"),
        ({"mu": 0.0}, "mu: 0.0 is not allowed"),
        ({"c": math.nan}, "c: nan is not allowed"),
    ],
)
def test_settings_out_of_range(values: dict[str, float], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        DualAveraging([nn.Parameter(torch.ones(1))], **{"lr": 0.1, "c": 0.01, "mu": 0.6, **values})
