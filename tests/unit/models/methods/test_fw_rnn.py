"""Frank-Wolfe steps around an optimizer: known displacements, the averaging identity, masks, and a restart amid a cycle."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autosparse.models.errors import SpecError
from autosparse.models.masks import mask as masks
from autosparse.models.masks.mask import Mask
from autosparse.models.methods.contract import Setup
from autosparse.models.methods.fw_rnn import FW_RNN, FrankWolfe, FrankWolfeSteps, frank_wolfe_
from autosparse.models.methods.registry import parse
from autosparse.models.networks.build import build_network
from autosparse.models.seeding import generator
from autosparse.models.specs.run_specs import DataSpec, JobSpec, NetworkSpec, TrainSpec
from autosparse.models.training.images import ImageSet
from autosparse.models.training.loop import EpochReport, fit
from autosparse.models.training.trainer import Trainer
from autosparse.storage.checkpoints import TrainingState, load_training_state, save_training_state

SPEC = TrainSpec(epochs=3, batch_size=8, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.0, schedule="cosine")
DATA = DataSpec(name="digits", mean=(0.5,), std=(0.25,))


def one_tensor(values: Tensor) -> nn.Module:
    module = nn.Module()
    module.weight = nn.Parameter(values.clone())
    return module


def displacement(gradients: Tensor, radius: float) -> Tensor:
    direction = torch.zeros_like(gradients[0])
    for inner, gradient in enumerate(gradients, start=1):
        frank_wolfe_(direction, gradient, inner, radius)
    return direction


def test_the_displacement_is_minus_the_radius_times_the_mean_unit_gradient() -> None:
    gradients = torch.randn(7, 4, 3, generator=generator(0), dtype=torch.float64)
    units = gradients / gradients.flatten(1).norm(dim=1)[:, None, None]
    torch.testing.assert_close(displacement(gradients, 0.02), -0.02 * units.mean(0), rtol=0, atol=1e-16)
    torch.testing.assert_close(displacement(gradients.float(), 0.02), -0.02 * units.mean(0).float(), rtol=0, atol=4e-9)


def test_one_gradient_again_and_again_goes_to_the_edge_of_the_ball() -> None:
    assert displacement(torch.tensor([[3.0, -4.0]] * 9), 0.5).tolist() == pytest.approx([-0.3, 0.4])


def test_no_gradient_is_no_step() -> None:
    assert displacement(torch.zeros(3, 4), 0.5).tolist() == [0.0] * 4
    module = one_tensor(torch.tensor([1.0, -2.0]))
    wrapper = FrankWolfeSteps(module, FrankWolfe(inner=2), steps=9, peak=0.1)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    for gradient in (torch.zeros(2), None, torch.zeros(2), torch.zeros(2)):
        module.weight.grad = gradient
        wrapper.step(optimizer)
        assert module.weight.tolist() == [1.0, -2.0]
    assert wrapper.facts() == {"fw_agreement": 0.0}


def test_far_from_the_minimum_of_a_bowl_the_displacement_points_to_it() -> None:
    goal, radius = torch.tensor([6.0, -8.0], dtype=torch.float64), 0.1
    module = one_tensor(torch.zeros(2, dtype=torch.float64))
    wrapper = FrankWolfeSteps(module, FrankWolfe(radius=radius, inner=400, outer="sgd"), steps=400, peak=1.0)
    optimizer = torch.optim.SGD(module.parameters(), lr=radius)
    for _ in range(400):
        module.weight.grad = module.weight.detach() - goal
        assert module.weight.detach().norm() <= radius * (1 + 1e-9)  # the inner points are in the ball
        wrapper.step(optimizer)
    assert module.weight.tolist() == pytest.approx([0.06, -0.08], abs=1e-9)  # = radius * (goal - w) / ||goal - w||


def test_accumulating_leaves_the_ball() -> None:
    module = one_tensor(torch.zeros(2))
    wrapper = FrankWolfeSteps(module, FrankWolfe(radius=0.5, inner=4, iterate="accumulate", outer="sgd"), steps=9, peak=1.0)
    seen = []
    for _ in range(4):
        seen.append(module.weight.tolist())
        module.weight.grad = torch.tensor([0.0, 2.0])
        wrapper.step(torch.optim.SGD(module.parameters(), lr=1.0))
    assert seen == [[0.0, 0.0], [0.0, -0.5], [0.0, -1.0], [0.0, -1.5]]
    assert module.weight.tolist() == pytest.approx([0.0, -1.0])  # from where the cycle began, along the unit gradient


def test_one_inner_step_is_adam_on_normalised_gradients() -> None:
    start = torch.randn(5, 3, generator=generator(1), dtype=torch.float64)
    ours, plain = one_tensor(start), one_tensor(start)
    wrapper = FrankWolfeSteps(ours, FrankWolfe(radius=0.003, outer_lr=0.02), steps=99, peak=0.5)
    outer, adam = (torch.optim.Adam(module.parameters(), lr=0.02) for module in (ours, plain))
    for number in range(20):
        gradient = torch.randn(5, 3, generator=generator(2, number), dtype=torch.float64)
        ours.weight.grad, plain.weight.grad = gradient.clone(), gradient / gradient.norm()
        outer.param_groups[0]["lr"] = 0.5  # as the loop sets it, at the peak of its schedule
        wrapper.step(outer)
        adam.step()
    torch.testing.assert_close(ours.weight, plain.weight, rtol=1e-12, atol=1e-13)
    assert outer.param_groups[0]["lr"] == pytest.approx(0.02)


def test_two_directions_at_a_right_angle_agree_by_one_over_root_two() -> None:
    module = one_tensor(torch.zeros(2))
    wrapper = FrankWolfeSteps(module, FrankWolfe(inner=2), steps=9, peak=0.1)
    for gradient in ([0.0, 3.0], [0.5, 0.0]):
        module.weight.grad = torch.tensor(gradient)
        wrapper.step(torch.optim.Adam(module.parameters()))
    assert wrapper.facts()["fw_agreement"] == pytest.approx(0.5**0.5)


def images(count: int = 40) -> ImageSet:
    labels = torch.arange(count) % 3
    pixels = torch.randint(0, 120, (count, 1, 6, 6), generator=generator(3))
    pixels[torch.arange(count), 0, labels * 2] += 130  # a bright row says the class
    return ImageSet(pixels.to(torch.uint8), labels)


def trainer(settings: FrankWolfe, *, network: str = "cnn", mask: Mask | None = None, **changes: Any) -> Trainer:
    spec = replace(SPEC, **changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251
        module: nn.Module = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3))
    if network == "row-lstm":
        module = build_network(NetworkSpec(name="row-lstm", width=16), image_shape=(1, 6, 6), num_classes=3, seed=0)
    setup = Setup(network=module, train=spec, density=None, head=True, image_shape=(1, 6, 6), steps_per_epoch=5, seed=0)
    assert FW_RNN.refuses(setup, settings) is None
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parts = FW_RNN.parts(setup, settings)
    return Trainer(module, module, spec, DATA, JobSpec(), images(), images(12), seed=5, mask=mask, parts=parts)


@pytest.mark.parametrize("iterate", ["ball", "accumulate"])
@pytest.mark.parametrize("outer", ["adam", "sgd"])
def test_a_training_taken_up_from_its_files_amid_a_cycle_ends_in_the_same_bits(tmp_path: Path, iterate: Any, outer: Any) -> None:
    settings = FrankWolfe(inner=4, iterate=iterate, outer=outer, radius=0.05)
    whole = trainer(settings)
    kept: dict[int, TrainingState] = {}

    def keep(now: Trainer) -> None:
        if now.step in (6, 8):  # amid the second cycle, and at its end
            save_training_state(tmp_path, now.network.state_dict(), now.state(), {"step": now.step})
            kept[now.step] = load_training_state(tmp_path)

    fit(whole, on_epoch=lambda report: None, after_step=keep)
    for state in kept.values():
        again = trainer(settings)
        again.restore(state.network, state.optimizer, state.progress["step"])
        assert again.parts.state_dict()["wrapper"]["inner"] == state.progress["step"] % 4
        reports: list[EpochReport] = []
        fit(again, on_epoch=reports.append)
        assert all(torch.equal(tensor, again.network.state_dict()[name]) for name, tensor in whole.network.state_dict().items())
        assert reports[-1].facts == whole.parts.report()


def test_a_training_does_not_end_amid_a_cycle() -> None:
    one = trainer(FrankWolfe(inner=4))  # 15 steps: three cycles and three batches
    fit(one, on_epoch=lambda report: None)
    state = one.parts.state_dict()["wrapper"]
    assert (state["inner"], state["done"]) == (0, 15)
    steps = {int(values["step"]) for values in one.optimizer.state.values()}
    assert steps == {4}


@pytest.mark.parametrize("inner", [1, 3])
def test_masked_weights_stay_zero(inner: int) -> None:
    network = trainer(FrankWolfe()).network
    mask = {name: torch.arange(p.numel()).reshape(p.shape) % 3 == 0 for name, p in masks.prunable(network).items()}
    one, checked = trainer(FrankWolfe(inner=inner, radius=0.1), mask=mask), []
    fit(one, on_epoch=lambda report: None, after_step=lambda now: checked.append(masks.violations(now.network, mask)))
    assert checked == [0] * 15


@pytest.mark.parametrize("network", ["cnn", "row-lstm"])
@pytest.mark.parametrize("settings", [FrankWolfe(outer_lr=0.01), FrankWolfe(inner=2, outer_lr=0.02), FrankWolfe(outer="sgd", inner=2)])
def test_the_loss_falls(network: str, settings: FrankWolfe) -> None:
    one, reports = trainer(settings, network=network, epochs=8), []
    fit(one, on_epoch=reports.append)
    assert reports[-1].loss < 0.7 * reports[0].loss
    assert 0 < reports[-1].facts["fw_agreement"] <= 1 + 1e-5


@pytest.mark.parametrize(
    "text", ["fw_rnn(radius=0)", "fw_rnn(inner=0)", "fw_rnn(iterate=sphere)", "fw_rnn(outer=rmsprop)", "fw_rnn(outer_lr=-1)"]
)
def test_settings_out_of_range_are_named(text: str) -> None:
    with pytest.raises(SpecError, match=f"^fw_rnn.{text[7:].split('=')[0]}: ") as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_its_levels_are_numbers_of_batches() -> None:
    assert [level.inner for level in parse("fw_rnn")[1]] == [1, 5]  # type: ignore[attr-defined]
