"""Curves between two points: the ring, whose best bend is known, and networks whose loss is known."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from autosparse.models import seeding
from autosparse.models.errors import DivergedError, SpecError
from autosparse.models.probes.curve import CurveSettings, along, bezier, curve, even, midpoint, summary, train_bend
from autosparse.models.probes.surface import Surface
from autosparse.models.probes.vectors import flatten

EAST, WEST = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([-1.0, 0.0], dtype=torch.float64)
BEST = torch.tensor([0.0, 4.5**0.5], dtype=torch.float64)


def ring(point: Tensor) -> Tensor:
    return (point.square().sum() - 1) ** 2


def ring_mean(bend: Tensor) -> float:
    mean = along(lambda point: {"loss": float(ring(point))}, EAST, bend, WEST, even(401))["loss_mean"]
    assert isinstance(mean, float)
    return mean


def test_mean_loss_on_the_ring():
    # straight: integral of ((1 - 2t)^2 - 1)^2 = 8/15; best bend: 2/105
    assert ring_mean(midpoint(EAST, WEST)) == pytest.approx(8 / 15, abs=1e-8)
    assert ring_mean(BEST) == pytest.approx(2 / 105, abs=1e-8)


@pytest.mark.parametrize("shift", [(0.01, 0.0), (-0.01, 0.0), (0.0, 0.001), (0.0, -0.001)])
def test_no_bend_beside_the_best_is_better(shift: tuple[float, float]):
    assert ring_mean(BEST + torch.tensor(shift, dtype=torch.float64)) > ring_mean(BEST)


def test_sgd_finds_the_best_bend_of_the_ring():
    settings = CurveSettings(steps=300, lr=0.05, momentum=0.9, final_lr=0.001, draws=32)
    north = torch.tensor([0.0, 1.0], dtype=torch.float64)  # the straight line is a saddle of this symmetric loss
    bend = train_bend(ring, EAST, WEST, seeding.generator(0, "bend"), settings, first=north)
    assert bend[1].item() == pytest.approx(2.1213, abs=5e-4)
    assert bend[0].item() == pytest.approx(0.0, abs=5e-3)
    assert ring_mean(bend) == pytest.approx(0.019048, abs=1e-6)


def test_one_draw_a_step_finds_it_less_exactly():
    settings = CurveSettings(steps=1500, lr=0.02, momentum=0.9, final_lr=0.01)
    bend = train_bend(ring, EAST, WEST, seeding.generator(0, "bend"), settings, first=torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert ring_mean(bend) == pytest.approx(0.019048, abs=1e-3)


def test_a_bend_that_starts_on_the_straight_line_stays_on_a_line_of_symmetry():
    bend = train_bend(ring, EAST, WEST, seeding.generator(0), CurveSettings(steps=5, lr=0.05))
    assert bend[1].item() == 0.0 != bend[0].item()


def test_the_learning_rate_falls_as_said():
    # the loss has slope 1 in one step only, in which the bend then moves by lr times 2 t (1 - t)
    zero = torch.zeros(1, dtype=torch.float64)
    moved = []
    for steps in range(1, 11):
        settings = CurveSettings(steps=10, lr=1.0, momentum=0.0, final_lr=0.01)
        generator = seeding.generator(1)
        slopes: list[float] = []

        def loss(point: Tensor, slopes: list[float] = slopes, steps: int = steps) -> Tensor:
            slopes.append(1.0)
            return point.sum() * (1.0 if len(slopes) == steps else 0.0)

        bend = train_bend(loss, zero, zero, generator, settings)
        t = torch.rand(10, generator=seeding.generator(1), dtype=torch.float64)[steps - 1]
        moved.append(float(-bend / (2 * t * (1 - t))))
    assert moved == pytest.approx([1.0] * 6 + [1 - 0.99 / 4, 1 - 0.99 / 2, 1 - 0.99 * 3 / 4, 0.01])


def test_points_of_the_curve():
    assert torch.equal(bezier(EAST, BEST, WEST, 0.0), EAST)
    assert torch.equal(bezier(EAST, BEST, WEST, 1.0), WEST)
    assert bezier(EAST, BEST, WEST, 0.5).tolist() == [0.0, float(BEST[1]) / 2]
    straight = bezier(EAST, midpoint(EAST, WEST), WEST, 0.25)
    assert straight.tolist() == [0.5, 0.0]
    assert even(5) == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_summary_on_paper():
    # two chords of length 3 and 1 at equal steps of t
    assert summary([0.0, 2.0, 4.0], [0.0, 0.5, 1.0], [3.0, 1.0]) == {"min": 0.0, "max": 4.0, "mean": 2.0, "integral": 6.0}


def test_length_of_a_straight_line_and_of_a_parabola():
    measure = {"loss": 1.0}
    walk = along(lambda point: measure, EAST, midpoint(EAST, WEST), WEST, even(7))
    assert walk["length"] == pytest.approx(2.0) == walk["loss_integral"]
    # y = b (1 - x^2) / 2 for bend (0, b): arc length of b = 2 is sqrt(5) + asinh(2) / 2
    bent = along(lambda point: measure, EAST, torch.tensor([0.0, 2.0], dtype=torch.float64), WEST, even(301))
    assert bent["length"] == pytest.approx(5**0.5 + 0.5 * torch.asinh(torch.tensor(2.0)).item(), rel=1e-4)


@pytest.mark.parametrize("t", [-0.1, 1.1, float("nan")])
def test_t_outside_the_curve_is_refused(t: float):
    with pytest.raises(SpecError, match=r"t: .* is not allowed; allowed: >= 0 and <= 1"):
        bezier(EAST, BEST, WEST, t)


def test_end_points_of_different_lengths_are_refused():
    with pytest.raises(SpecError, match="two vectors of the same length"):
        train_bend(ring, EAST, torch.zeros(3), seeding.generator(0), CurveSettings())
    with pytest.raises(SpecError, match=r"first: \(3,\)"):
        train_bend(ring, EAST, WEST, seeding.generator(0), CurveSettings(), first=torch.zeros(3))


def test_a_loss_that_is_nan_ends_it():
    with pytest.raises(DivergedError, match=r"curve.loss: nan at step 0, t = 0\.\d+ is not allowed; allowed: finite"):
        train_bend(lambda point: ring(point) * float("nan"), EAST, WEST, seeding.generator(0), CurveSettings())
    with pytest.raises(DivergedError, match=r"curve.loss: inf at t = 0\.500"):
        along(lambda point: {"loss": float("inf") if abs(point[0]) < 0.1 else 0.0}, EAST, BEST, WEST, even(3))


def networks() -> tuple[nn.Sequential, nn.Sequential]:
    both = []
    for seed in range(2):
        with seeding.scoped(seed, "test"):
            both.append(nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)))
    return both[0], both[1]


def batches() -> list[tuple[Tensor, Tensor]]:
    stream = torch.Generator().manual_seed(3)
    return [(torch.randn(size, 1, 4, 4, generator=stream), torch.randint(0, 2, (size,), generator=stream)) for size in (8, 5)]


def test_the_ends_of_the_curve_are_the_networks_with_statistics_taken_anew():
    network, other = networks()
    (batch, _) = batches()
    settings = CurveSettings(steps=20, lr=0.1, points=3)
    record = curve({"network": network, "other": other}, [batch], seeding.generator(0), settings)
    for place, one in ((0, other), (2, network)):
        one[1].momentum = 1.0
        one.train()(batch[0])
        outputs = one.eval()(batch[0])
        for name in ("curve", "line"):
            assert record[f"{name}_loss"][place] == pytest.approx(cross_entropy(outputs, batch[1]).item(), rel=1e-5)
            assert record[f"{name}_error"][place] == pytest.approx((outputs.argmax(1) != batch[1]).float().mean().item())
    assert record["curve_t"] == record["line_t"] == [0.0, 0.5, 1.0]


def test_training_lowers_the_loss_between_two_networks():
    network, other = networks()
    settings = CurveSettings(steps=200, lr=0.1, points=5)
    record = curve({"network": network, "other": other}, batches(), seeding.generator(0), settings)
    assert record["curve_loss_mean"] < record["line_loss_mean"] - 0.05


def test_means_are_over_images_not_batches():
    network, _ = networks()
    network = nn.Sequential(network[3], nn.Linear(16, 2))
    two = batches()
    whole = (torch.cat([two[0][0], two[1][0]]), torch.cat([two[0][1], two[1][1]]))
    split, joined = Surface(network, two).measure(flatten(network)), Surface(network, [whole]).measure(flatten(network))
    assert split["loss"] == pytest.approx(joined["loss"], rel=1e-6) and split["error"] == joined["error"]


def test_statistics_may_come_from_other_batches():
    network, _ = networks()
    first, second = batches()
    measured = Surface(network, [first], statistics=[second]).measure(flatten(network))["loss"]
    network[1].momentum = 1.0
    network.train()(second[0])
    assert measured == pytest.approx(cross_entropy(network.eval()(first[0]), first[1]).item(), rel=1e-5)


def test_the_training_loss_goes_round_the_batches_on_batch_statistics():
    network, _ = networks()
    loss = Surface(network, batches()).training_loss()
    point = flatten(network)
    values = [loss(point).item() for _ in range(4)]
    network.train()
    expected = [cross_entropy(network(images), labels).item() for images, labels in batches()]
    assert values == pytest.approx([*expected, *expected], rel=1e-6)


def test_networks_that_differ_are_refused():
    with pytest.raises(SpecError, match=r"networks: weight \(2, 16\) and \(2, 4\)"):
        curve({"network": nn.Linear(4, 2), "other": nn.Linear(16, 2)}, batches(), seeding.generator(0), CurveSettings())
