"""Every optimizer of torch under masks and over a resume, and what else a training may set, by numbers worked out by hand."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autosparse.models.errors import SpecError
from autosparse.models.learning_rate import learning_rates
from autosparse.models.masks import mask as masks
from autosparse.models.specs import optimizers
from autosparse.models.specs.json_object import JsonObject
from autosparse.models.specs.run_specs import DataSpec, JobSpec, TrainSpec
from autosparse.models.training.images import ImageSet
from autosparse.models.training.lookahead import by_sgd
from autosparse.models.training.loop import EpochReport, fit
from autosparse.models.training.mixup import Between, mixed
from autosparse.models.training.objective import Classification
from autosparse.models.training.optimizers import make_optimizer
from autosparse.models.training.step import split, train_step
from autosparse.models.training.trainer import Rank, Trainer
from autosparse.storage.checkpoints import load_training_state, save_training_state

SPEC = TrainSpec(epochs=2, batch_size=8, lr=0.01, momentum=0.0, nesterov=False, weight_decay=0.01, schedule="constant")
DATA = DataSpec(name="digits", mean=(0.5,), std=(0.25,), augment="shift_flip", pad=1)
SETTINGS: dict[str, dict[str, Any]] = {"adamw": {"betas": [0.8, 0.99], "amsgrad": True}, "rmsprop": {"centered": True}}
ALL_ON = {"clip": 0.5, "accumulate": 2, "mixup": 0.4, "label_smoothing": 0.1, "schedule": "onecycle"}


def images(count: int = 40) -> ImageSet:
    stream = torch.Generator().manual_seed(1)
    return ImageSet(torch.randint(0, 256, (count, 1, 4, 4), generator=stream, dtype=torch.uint8), torch.arange(count) % 3)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251
        made = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.Flatten(), nn.Linear(24, 3)
        )
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def third(module: nn.Module) -> masks.Mask:
    """Every third weight is kept."""
    return {name: torch.arange(p.numel()).reshape(p.shape) % 3 == 0 for name, p in masks.prunable(module).items()}


def trainer(spec: TrainSpec, module: nn.Module | None = None, **changes: Any) -> Trainer:
    module = module or network()
    settings = {"data": DATA, "job": JobSpec(), "train": images(), "test": images(12), "seed": 5, **changes}
    return Trainer(network=module, forward=module, spec=spec, **settings)


def named(name: str, **changes: Any) -> TrainSpec:
    momentum = {"momentum": 0.9} if "momentum" in optimizers.keywords(name) else {}
    return replace(SPEC, optimizer=name, settings=JsonObject(SETTINGS.get(name)), **momentum, **changes)


class Task(Classification):
    """Images with an optimizer and a schedule of one's own."""

    def __init__(self, make: Callable[[nn.Module, TrainSpec], Any] | None = None, share: Any = None) -> None:
        super().__init__()
        object.__setattr__(self, "make", make)
        object.__setattr__(self, "share", share)

    def optimizer(self, network: nn.Module, spec: TrainSpec) -> Any:
        return self.make(network, spec) if self.make else None  # type: ignore[attr-defined]

    @property
    def schedule(self) -> Any:
        return self.share  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", optimizers.names())
def test_masked_weights_are_zero_and_the_others_move(name: str) -> None:
    one = trainer(named(name), mask=third(network()))
    before = {key: param.detach().clone() for key, param in one.network.named_parameters()}

    def after_step(now: Trainer) -> None:
        assert masks.violations(now.network, third(now.network)) == 0

    fit(one, on_epoch=lambda report: None, after_step=after_step)
    moved = {key: (param != before[key]) for key, param in one.network.named_parameters()}
    for key, keep in third(network()).items():
        assert moved[key][keep].float().mean() > 0.9 and not moved[key][~keep].any()


@pytest.mark.parametrize("settings", [{"eps": 0}, {"amsgrad": True, "eps": 0}])
def test_a_division_of_zero_by_zero_leaves_masked_weights_at_zero(settings: dict[str, Any]) -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))  # where no gradient of a kept weight is zero
    one = trainer(replace(SPEC, optimizer="adamw", settings=JsonObject(settings)), linear, mask=third(linear))
    fit(one, on_epoch=lambda report: None)
    assert masks.violations(one.network, one.mask or {}) == 0


def noisy(module: nn.Module, spec: TrainSpec) -> torch.optim.Optimizer:
    class Noisy(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for group in self.param_groups:
                for param in group["params"]:
                    param.data.add_(0.01)

    return Noisy(module.parameters(), lr=spec.lr)


def test_an_optimizer_of_ones_own_that_moves_everything_leaves_masked_weights_at_zero() -> None:
    one = trainer(SPEC, mask=third(network()), objective=Task(noisy))
    kept = third(network())["5.weight"]
    before = one.network.get_parameter("5.weight").detach().clone()
    train_step(one, (torch.zeros(8, 1, 4, 4), torch.zeros(8, dtype=torch.long)), (0.01, 0.0))
    torch.testing.assert_close(one.network.get_parameter("5.weight").detach(), torch.where(kept, before + 0.01, torch.zeros(())))


@pytest.mark.parametrize("on", [{}, ALL_ON], ids=["plain", "all-on"])
@pytest.mark.parametrize("name", optimizers.names())
def test_taken_up_from_its_files_in_an_epoch_it_ends_in_the_same_bits(name: str, on: dict[str, Any], tmp_path: Path) -> None:
    spec, mask = named(name, **on), third(network())
    whole = trainer(spec, mask=mask)

    def after_step(now: Trainer) -> None:
        if now.step == 7:
            save_training_state(tmp_path, now.network.state_dict(), now.state(), {"step": 7})

    fit(whole, on_epoch=lambda report: None, after_step=after_step)
    kept, again = load_training_state(tmp_path), trainer(spec, mask=mask)
    again.restore(kept.network, kept.optimizer, kept.progress["step"])
    fit(again, on_epoch=lambda report: None)
    different = [key for key, tensor in whole.network.state_dict().items() if not torch.equal(tensor, again.network.state_dict()[key])]
    assert not different
    assert whole.step == again.step == 10


class One(nn.Module):
    """One weight per class, and no more."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([values]))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :1] * self.weight


PLAIN = replace(SPEC, weight_decay=0.0, lr=1.0, batch_size=1, epochs=1)


class Fixed(Classification):
    """A loss whose gradient is (3, 4)."""

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        return (network.weight * torch.tensor([[3.0, 4.0]])).sum()  # type: ignore[operator]


@pytest.mark.parametrize(("clip", "moved"), [(None, [3.0, 4.0]), (10.0, [3.0, 4.0]), (1.0, [0.6, 0.8])])
def test_a_gradient_of_norm_five_is_clipped(clip: float | None, moved: list[float]) -> None:
    one = trainer(replace(PLAIN, clip=clip), One([0.0, 0.0]), objective=Fixed())
    train_step(one, (torch.ones(1, 1), torch.zeros(1)), (1.0, 0.0))
    torch.testing.assert_close(one.network.get_parameter("weight").detach(), -torch.tensor([moved]))


def test_clipping_sees_kept_weights_alone() -> None:
    one = trainer(replace(PLAIN, clip=1.0), One([0.0, 0.0]), objective=Fixed(), mask={"weight": torch.tensor([[True, False]])})
    train_step(one, (torch.ones(1, 1), torch.zeros(1)), (1.0, 0.0))
    torch.testing.assert_close(one.network.get_parameter("weight").detach(), torch.tensor([[-1.0, 0.0]]))  # 3 / 3, not 3 / 5


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_parts_of_a_batch_make_the_step_of_the_whole(name: str) -> None:
    ends = []
    for accumulate in (1, 2, 8):
        made = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        made.load_state_dict({"1.weight": torch.linspace(-1, 1, 48).reshape(3, 16), "1.bias": torch.zeros(3)})
        one, losses = trainer(replace(SPEC, optimizer=name, accumulate=accumulate), made), []
        fit(one, on_epoch=lambda report, losses=losses: losses.append(report.loss))
        ends.append((made[1].weight.detach(), torch.tensor(losses)))  # type: ignore[union-attr]
    for weight, losses in ends[1:]:
        torch.testing.assert_close(weight, ends[0][0], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(losses, ends[0][1], atol=1e-6, rtol=1e-6)


def test_a_batch_is_split_along_its_examples_whatever_it_is_made_of() -> None:
    batch = {"x": torch.arange(8).reshape(4, 2), "labels": (torch.arange(4), torch.tensor(7))}
    first, second = split(batch, 2)
    assert torch.equal(first["x"], torch.tensor([[0, 1], [2, 3]])) and torch.equal(second["labels"][0], torch.tensor([2, 3]))
    assert int(second["labels"][1]) == 7
    assert split(batch, 1)[0] is batch
    for bad in ((torch.zeros(4), torch.zeros(2)), (torch.zeros(3), torch.zeros(3)), ()):
        with pytest.raises(SpecError, match=r"^train\.accumulate: 2 is not allowed; allowed: 1 for batches"):
            split(bad, 2)


def test_smoothed_labels_by_the_formula() -> None:
    """Logits (0, ln 3): probabilities 1/4, 3/4; at .2 the label 1 is .9 and the other class .1."""
    loss = Classification(label_smoothing=0.2).loss(One([0.0, math.log(3)]), (torch.ones(1, 1), torch.tensor([1])))
    assert float(loss.detach()) == pytest.approx(-0.9 * math.log(0.75) - 0.1 * math.log(0.25))


def test_labels_between_two_by_the_formula() -> None:
    between = Between(torch.tensor([1]), torch.tensor([0]), torch.tensor([0.7]))
    assert between.probabilities(3).tolist() == [[pytest.approx(0.3), pytest.approx(0.7), 0.0]]
    loss = Classification().loss(One([0.0, math.log(3)]), (torch.ones(1, 1), between))
    assert float(loss.detach()) == pytest.approx(-0.7 * math.log(0.75) - 0.3 * math.log(0.25))


def test_mixup_mixes_images_and_labels_by_one_share_that_seed_and_step_decide() -> None:
    images, labels = torch.arange(8.0).reshape(8, 1), torch.arange(8)
    found, between = mixed((images, labels), 1.0, seed=3, step=4)
    share = float(between.share[0])
    assert 0 < share < 1 and torch.equal(between.share, torch.full((8,), share))
    torch.testing.assert_close(found[:, 0], share * between.first + (1 - share) * between.second)
    assert sorted(between.second.tolist()) == list(range(8)) and between.second.tolist() != list(range(8))
    assert torch.equal(mixed((images, labels), 1.0, seed=3, step=4)[0], found)
    assert not torch.equal(mixed((images, labels), 1.0, seed=3, step=5)[0], found)
    assert not torch.equal(mixed((images, labels), 1.0, seed=4, step=4)[0], found)


def test_a_share_of_one_is_no_mixup() -> None:
    images, labels = torch.arange(8.0).reshape(8, 1), torch.arange(8) % 2
    pure = [mixed((images, labels), 1e-9, seed=0, step=step) for step in range(20)]
    ones = [(found, between) for found, between in pure if float(between.share[0]) == 1]
    assert ones
    for found, between in ones:
        assert torch.equal(found, images)
        made = One([0.5, -0.5])
        torch.testing.assert_close(Classification().loss(made, (found, between)), Classification().loss(made, (images, labels)))


def test_shares_have_the_variance_of_the_beta_distribution() -> None:
    shares = torch.tensor([float(mixed((torch.zeros(1, 1), torch.zeros(1)), 0.5, 0, step)[1].share[0]) for step in range(2000)])
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(shares.var()) == pytest.approx(1 / 8, abs=0.01)  # of Beta(1/2, 1/2)


def test_test_images_are_looked_at_every_other_epoch_and_after_the_last() -> None:
    seen: list[EpochReport] = []
    fit(trainer(replace(SPEC, epochs=5, evaluate_every=2)), on_epoch=seen.append)
    assert [list(report.metrics) for report in seen] == [[], ["accuracy"], [], ["accuracy"], ["accuracy"]]
    assert all(math.isfinite(report.loss) for report in seen)
    ends = []
    for every in (1, 3):
        one = trainer(replace(SPEC, evaluate_every=every))
        fit(one, on_epoch=lambda report: None)
        ends.append(one.network.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def two_groups(module: nn.Module, spec: TrainSpec) -> torch.optim.Optimizer:
    first, *rest = module.parameters()
    return torch.optim.SGD([{"params": [first], "lr": spec.lr / 4}, {"params": rest}], lr=spec.lr, momentum=0.5)


def test_an_optimizer_of_ones_own_keeps_its_groups_rates_and_its_momentum() -> None:
    seen: list[list[tuple[float, float]]] = []
    spec = replace(SPEC, lr=0.5, momentum=0.9)
    one = trainer(spec, objective=Task(two_groups, lambda step, steps: 1 - step / steps))
    reports: list[EpochReport] = []

    def after_step(now: Trainer) -> None:
        seen.append([(group["lr"], group["momentum"]) for group in now.optimizer.param_groups])

    fit(one, on_epoch=reports.append, after_step=after_step)
    assert len(seen) == 10
    assert seen[0] == [(0.125, 0.5), (0.5, 0.5)]
    assert seen[5] == [(0.0625, 0.5), (0.25, 0.5)]
    assert reports[-1].lr == pytest.approx(0.125 * 0.1)


def test_momentum_moves_with_the_one_cycle_schedule_for_sgd_alone() -> None:
    for name, expected in (("sgd", 0.95), ("rmsprop", 0.9)):
        one = trainer(named(name, schedule="onecycle"))
        one.set_rates(*learning_rates(one.spec, one.steps_per_epoch)[0])
        assert one.optimizer.param_groups[0]["momentum"] == expected
    assert trainer(named("adamw", schedule="onecycle")).optimizer.param_groups[0]["betas"] == (0.8, 0.99)


@pytest.mark.parametrize(("share", "said"), [(-1, "-1"), (math.nan, "nan"), ("half", "'half'"), (None, "None")])
def test_a_schedule_of_ones_own_that_will_not_do_is_one_line(share: Any, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        learning_rates(SPEC, 3, lambda step, steps: share)
    assert str(caught.value) == f"task.schedule(0, 6): {said} is not allowed; allowed: a number >= 0, the share of train.lr"
    with pytest.raises(SpecError, match=r"^task\.schedule raised ZeroDivisionError: .*test_optimizers\.py"):
        learning_rates(SPEC, 3, lambda step, steps: 1 / 0)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("adamw", {"betas": [2, 0.9]}, "beta parameter"),
        ("adamw", {"betas": 0.9}, ""),
        ("sgd", {"dampening": 0.1}, "nesterov|Nesterov"),
        ("adam", {"eps": "a"}, ""),
    ],
)
def test_settings_that_torch_refuses_are_one_line(name: str, settings: dict[str, Any], said: str) -> None:
    nesterov = {"momentum": 0.9, "nesterov": True} if name == "sgd" else {}
    spec = replace(SPEC, optimizer=name, settings=JsonObject(settings), **nesterov)
    with pytest.raises(
        SpecError, match=rf"^train\.settings: .* is not allowed; allowed: what torch\.optim\.\w+ takes \(.*({said})"
    ) as caught:
        make_optimizer(spec, [nn.Parameter(torch.zeros(1))])
    assert "\n" not in str(caught.value)


def test_looking_ahead_stays_with_sgd() -> None:
    same, parts = by_sgd(replace(SPEC, momentum=0.8), network())
    assert same == replace(SPEC, momentum=0.8) and parts.optimizer is not None and parts.optimizer.param_groups[0]["weight_decay"] == 0.01
    spec, parts = by_sgd(named("adamw", clip=1.0), network())
    assert (spec.optimizer, spec.momentum, spec.clip, len(spec.settings)) == ("sgd", 0.9, 1.0, 0)
    assert type(parts.optimizer) is torch.optim.SGD and parts.optimizer.param_groups[0]["weight_decay"] == 0


def test_the_share_of_a_worker_is_split_into_equal_parts() -> None:
    with pytest.raises(SpecError, match=r"train\.accumulate: 4 is not allowed; allowed: a number that divides the 2 examples of a worker"):
        trainer(replace(SPEC, accumulate=4), rank=Rank(0, 4))
