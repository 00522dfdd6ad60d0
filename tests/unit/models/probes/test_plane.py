"""The plane through three networks: axes, corners, and the cells between them."""

import pytest
import torch
from torch import Tensor, nn

from autosparse.models import seeding
from autosparse.models.errors import DivergedError, SpecError
from autosparse.models.probes.curve import CurveSettings, train_bend
from autosparse.models.probes.plane import PlaneSettings, grid_lines, plane, plane_through, survey
from autosparse.models.probes.surface import Surface
from autosparse.models.probes.vectors import flatten

# a 3-4-5 triangle that is turned in space and away from the origin
CORNERS = (torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1.0, 4.0, 1.0]), torch.tensor([1.0, 2.0, 5.0]))


def test_axes_and_corners_on_paper():
    through = plane_through(*CORNERS)
    assert through.u.tolist() == [0.0, 1.0, 0.0]
    assert through.v.tolist() == [0.0, 0.0, 1.0]
    assert through.corners == ((0.0, 0.0), (3.0, 0.0), (1.0, 4.0))
    assert through.at(2.0, 0.5).tolist() == [1.0, 3.0, 1.5]


def test_axes_are_orthonormal_even_for_points_almost_on_a_line():
    stream = seeding.generator(0, "points")
    first, second, aside = (torch.randn(1000, generator=stream, dtype=torch.float64) for _ in range(3))
    through = plane_through(first, second, first + 50 * (second - first) + 1e-3 * aside)
    assert through.u.norm().item() == pytest.approx(1.0, abs=1e-14)
    assert through.v.norm().item() == pytest.approx(1.0, abs=1e-14)
    assert through.u.dot(through.v).item() == pytest.approx(0.0, abs=1e-14)


def test_the_grid_goes_beyond_the_points_on_all_sides():
    xs, ys = grid_lines(plane_through(*CORNERS), size=8, margin=0.2)
    assert xs == pytest.approx([-0.6, 0.0, 0.6, 1.2, 1.8, 2.4, 3.0, 3.6])
    assert (ys[0], ys[-1], len(ys)) == (pytest.approx(-0.8), pytest.approx(4.8), 8)
    left = plane_through(torch.zeros(2), torch.tensor([1.0, 0.0]), torch.tensor([-3.0, 1.0]))  # the third point lies left of both
    assert grid_lines(left, size=3, margin=0.25)[0] == [-4.0, -1.0, 2.0]


def test_rows_are_y():
    through = plane_through(*CORNERS)
    record = survey(lambda point: {"second": float(point[1]), "third": float(point[2])}, through, [0.0, 2.0], [0.0, 1.0, 4.0])
    assert record["second"] == [[1.0, 3.0]] * 3
    assert record["third"] == [[1.0, 1.0], [2.0, 2.0], [5.0, 5.0]]
    assert record["corners"] == [[0.0, 0.0], [3.0, 0.0], [1.0, 4.0]]


@pytest.mark.parametrize("third", [CORNERS[0], CORNERS[1], CORNERS[0] + 7 * (CORNERS[1] - CORNERS[0])])
def test_three_points_on_a_line_are_refused(third: Tensor):
    with pytest.raises(SpecError, match="three points on one line"):
        plane_through(CORNERS[0], CORNERS[1], third)


def test_the_same_network_twice_is_refused():
    with pytest.raises(SpecError, match="three points on one line"):
        plane_through(CORNERS[0], CORNERS[0], CORNERS[2])


def test_points_of_different_lengths_are_refused():
    with pytest.raises(SpecError, match=r"points of shapes \(3,\), \(3,\), \(2,\) are not allowed"):
        plane_through(CORNERS[0], CORNERS[1], torch.zeros(2))


def test_a_cell_that_is_nan_ends_it():
    with pytest.raises(DivergedError, match=r"plane.loss: nan at x = 2, y = 1 is not allowed"):
        survey(lambda point: {"loss": float("nan")}, plane_through(*CORNERS), [2.0], [1.0])


def networks(count: int) -> list[nn.Sequential]:
    made = []
    for seed in range(count):
        with seeding.scoped(seed, "test"):
            made.append(nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)))
    return made


def batches() -> list[tuple[Tensor, Tensor]]:
    stream = torch.Generator().manual_seed(3)
    return [(torch.randn(size, 1, 4, 4, generator=stream), torch.randint(0, 2, (size,), generator=stream)) for size in (8, 5)]


def test_corners_have_the_losses_of_the_three_networks():
    made = networks(3)
    surface = Surface(made[0], batches())
    through = plane_through(*(flatten(network) for network in made))
    losses = [surface.measure(flatten(network))["loss"] for network in made]
    assert max(losses) - min(losses) > 0.01
    assert [surface.measure(through.at(*corner))["loss"] for corner in through.corners] == pytest.approx(losses, rel=1e-5)


def test_the_record_of_three_networks():
    other, network, third = networks(3)
    record = plane({"network": network, "other": other, "third": third}, batches(), seeding.generator(0), PlaneSettings(size=3, margin=0.0))
    surface = Surface(network, batches())
    assert record["loss"][0][0] == pytest.approx(surface.measure(flatten(other))["loss"], rel=1e-5)
    assert record["corners"][2][1] == pytest.approx(record["y"][2])
    assert [len(row) for row in record["error"]] == [3, 3, 3]


def test_without_a_third_network_the_bend_of_the_curve_takes_its_place():
    other, network = networks(2)
    settings = CurveSettings(steps=10, lr=0.1)
    record = plane({"network": network, "other": other}, batches(), seeding.generator(0), PlaneSettings(size=2, curve=settings))
    start, end = flatten(other), flatten(network)
    bend = train_bend(Surface(network, batches()).training_loss(), start, end, seeding.generator(0), settings)
    assert record["corners"] == [list(corner) for corner in plane_through(start, end, bend).corners]


def test_networks_that_differ_are_refused():
    other, network = networks(2)
    with pytest.raises(SpecError, match="two networks with the same parameters"):
        plane({"network": network, "other": other, "third": nn.Linear(2, 2)}, batches(), seeding.generator(0), PlaneSettings())
