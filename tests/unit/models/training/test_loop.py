"""The training loop: resuming, masks, learning rates, shares of ranks, divergence."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from autosparse.models.errors import DivergedError, SpecError
from autosparse.models.learning_rate import learning_rates
from autosparse.models.masks import mask as masks
from autosparse.models.seeding import generator
from autosparse.models.specs.run_specs import DataSpec, JobSpec, TrainSpec
from autosparse.models.training.augmentation import draw
from autosparse.models.training.images import ImageSet, normalise
from autosparse.models.training.loop import EpochReport, batches, evaluate, fit
from autosparse.models.training.trainer import Rank, Trainer
from autosparse.storage.checkpoints import TrainingState, load_training_state, save_training_state

SPEC = TrainSpec(epochs=3, batch_size=8, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule="onecycle", warmup=0.3)
DATA = DataSpec(name="digits", mean=(0.5,), std=(0.25,), augment="shift_flip", pad=1)


def images(count: int = 40) -> ImageSet:
    stream = torch.Generator().manual_seed(1)
    return ImageSet(torch.randint(0, 256, (count, 1, 4, 4), generator=stream, dtype=torch.uint8), torch.arange(count) % 3)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.Dropout(0.1), nn.Flatten(), nn.Linear(24, 3)
        )


def trainer(**changes: object) -> Trainer:
    module = network()
    if changes.pop("channels_last", False):
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    settings = {"spec": SPEC, "data": DATA, "job": JobSpec(), "train": images(), "test": images(12), "seed": 5, **changes}
    return Trainer(network=module, forward=module, **settings)  # type: ignore[arg-type]


def state_of(one: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in one.network.state_dict().items()}


def test_five_batches_of_eight_in_forty_images_for_three_epochs() -> None:
    one, seen = trainer(), []
    fit(one, on_epoch=seen.append)
    assert [(report.epoch, report.step) for report in seen] == [(0, 5), (1, 10), (2, 15)]
    assert all(0 <= report.metrics["accuracy"] <= 1 for report in seen)


def test_same_seed_same_bits_and_another_seed_other_bits() -> None:
    ends = []
    for seed in (5, 5, 6):
        one = trainer(seed=seed)
        fit(one, on_epoch=lambda report: None)
        ends.append(state_of(one))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert not torch.equal(ends[0]["0.weight"], ends[2]["0.weight"])


def test_a_masked_channels_last_training_taken_up_from_its_files_ends_in_the_same_bits(tmp_path: Path) -> None:
    mask = {name: torch.arange(p.numel()).reshape(p.shape) % 3 == 0 for name, p in masks.prunable(network()).items()}
    whole = trainer(mask=mask, channels_last=True)
    kept: dict[int, TrainingState] = {}

    def keep(report: EpochReport) -> None:
        save_training_state(tmp_path, whole.network.state_dict(), whole.state(), {"step": whole.step})
        kept[report.epoch] = load_training_state(tmp_path)

    fit(whole, on_epoch=keep)
    again = trainer(mask=mask, channels_last=True)
    again.restore(kept[1].network, kept[1].optimizer, kept[1].progress["step"])
    fit(again, on_epoch=lambda report: None)
    assert all(torch.equal(tensor, again.network.state_dict()[name]) for name, tensor in whole.network.state_dict().items())


def test_a_training_entered_in_the_middle_of_an_epoch_sees_the_batches_that_are_left() -> None:
    one = trainer()
    whole = list(batches(one, 1))
    rest = list(batches(one, 1, start=3))
    assert len(rest) == 2
    assert all(torch.equal(left[0], right[0]) and torch.equal(left[1], right[1]) for left, right in zip(whole[3:], rest, strict=True))


def test_the_augmentation_of_a_batch_is_that_of_its_step() -> None:
    one = trainer()
    batch, _ = list(batches(one, 1))[3]
    rows = torch.randperm(40, generator=generator(5, "order", 1))[24:32]
    plain = normalise(one.train.images[rows], (0.5,), (0.25,), channels_last=True)
    assert torch.equal(batch, draw("shift_flip", 8, 1, generator(5, "augment", 8)).apply(plain))  # five steps in an epoch


def test_an_epoch_trains_in_training_mode_after_an_evaluation() -> None:
    one, modes = trainer(), []
    fit(one, on_epoch=lambda report: None, after_step=lambda now: modes.append(all(part.training for part in now.network.modules())))
    assert modes == [True] * 15


def test_masked_weights_and_their_momentum_are_exactly_zero_after_every_step() -> None:
    mask = {name: torch.arange(p.numel()).reshape(p.shape) % 3 == 0 for name, p in masks.prunable(network()).items()}
    one = trainer(mask=mask)
    checked = []

    def after_step(now: Trainer) -> None:
        parameters = dict(now.network.named_parameters())
        for name, keep in mask.items():
            assert not parameters[name].detach()[~keep].any()
            assert not now.optimizer.state[parameters[name]]["momentum_buffer"][~keep].any()
            assert parameters[name].detach()[keep].all()
        checked.append(now.step)

    fit(one, on_epoch=lambda report: None, after_step=after_step)
    assert checked == list(range(1, 16))


def test_one_cycle_rates_are_those_of_torch_with_its_own_defaults() -> None:
    table = learning_rates(SPEC, 5)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=15, pct_start=0.3)
    assert table[0] == (pytest.approx(0.1 / 25), 0.95)  # div_factor 25, momentum begins at its maximum
    for rate in table:
        assert rate == (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"])
        optimizer.step()
        scheduler.step()


def test_step_rates_fall_at_the_milestones() -> None:
    spec = dataclasses.replace(SPEC, schedule="steps", milestones=(1, 2), gamma=0.2)
    assert [round(rate, 6) for rate, _ in learning_rates(spec, 2)] == [0.1, 0.1, 0.02, 0.02, 0.004, 0.004]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_ranks_share_each_batch_without_gap_or_overlap(count: int) -> None:
    whole = [labels for _, labels in batches(trainer(), 0)]
    parts = [list(batches(trainer(rank=Rank(index, count)), 0)) for index in range(count)]
    for number, labels in enumerate(whole):
        assert torch.equal(torch.cat([part[number][1] for part in parts]), labels)


def test_ranks_see_the_same_augmentation_as_one_process() -> None:
    whole = next(batches(trainer(), 0))[0]
    halves = [next(batches(trainer(rank=Rank(index, 2)), 0))[0] for index in range(2)]
    assert torch.equal(torch.cat(halves), whole)


def test_a_loss_that_is_not_finite_stops_within_one_step() -> None:
    one = trainer(spec=dataclasses.replace(SPEC, lr=1e30, schedule="constant"))
    steps: list[int] = []
    with pytest.raises(DivergedError, match=r"train\.loss: .* at step \d"):
        fit(one, on_epoch=lambda report: None, after_step=lambda now: steps.append(now.step))
    assert len(steps) < 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: trainer(rank=Rank(0, 3)), "train.batch_size: 8 is not allowed; allowed: a multiple of the 3 workers"),
        (lambda: trainer(train=images(7)), "train.batch_size: 8 is not allowed; allowed: at most the 7 training examples"),
    ],
)
def test_batches_that_cannot_be_made(change: Callable[[], Trainer], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        change()


def test_accuracy_counts_every_test_image_once() -> None:
    one = trainer()
    one.network = nn.Sequential(nn.Flatten(), Constant())
    assert evaluate(one, batch_size=5) == {"accuracy": pytest.approx(4 / 12)}  # labels 0, 1, 2 in turn; always 0 is said


class Constant(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[1.0, 0.0, 0.0]]).repeat(len(x), 1)
