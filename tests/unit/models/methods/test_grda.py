"""Directional pruning as a method: what is thresholded, the trade-off of mu, taking up from files, divergence."""

import dataclasses
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import nn

from autosparse.models.errors import DivergedError, SpecError
from autosparse.models.masks import mask as masks
from autosparse.models.methods.contract import Setup
from autosparse.models.methods.registry import METHODS, parse
from autosparse.models.specs.run_specs import DataSpec, JobSpec, TrainSpec
from autosparse.models.training.images import ImageSet
from autosparse.models.training.loop import EpochReport, fit
from autosparse.models.training.trainer import Trainer

# momentum and weight decay are those of a spec for SGD: the method leaves them alone
SPEC = TrainSpec(epochs=3, batch_size=16, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule="onecycle", warmup=0.3)
DATA = DataSpec(name="digits", mean=(0.5,), std=(0.25,))


def images(count: int = 160) -> ImageSet:
    """Three classes: the brighter half of the image is above, below, or neither."""
    stream = torch.Generator().manual_seed(1)
    pixels, labels = torch.randint(0, 160, (count, 1, 6, 6), generator=stream, dtype=torch.uint8), torch.arange(count) % 3
    pixels[labels == 0, :, :3] += 60
    pixels[labels == 1, :, 3:] += 60
    return ImageSet(pixels, labels)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251
        module = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3)),
        )
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def trainer(text: str, *, head: bool = True, **changes: Any) -> Trainer:
    module, spec = network(), dataclasses.replace(SPEC, **changes)
    name, (settings,) = parse(text)
    setup = Setup(network=module, train=spec, density=None, head=head, image_shape=(1, 6, 6), steps_per_epoch=10, seed=5)
    parts = METHODS[name].parts(setup, settings)
    given = {"spec": spec, "data": DATA, "job": JobSpec(), "train": images(), "test": images(60), "seed": 5, "parts": parts}
    return Trainer(network=module, forward=module, **given)


def zeros(module: nn.Module) -> dict[str, int]:
    return {name: int((param == 0).sum()) for name, param in module.named_parameters()}


def test_only_prunable_weights_get_zeros_and_the_facts_count_them() -> None:
    one, seen = trainer("grda(c=0.05,mu=0.6)"), []
    fit(one, on_epoch=seen.append)
    found, prunable = zeros(one.network), masks.prunable(one.network)
    assert all((count > 0) == (name in prunable) for name, count in found.items())
    assert masks.total(masks.full(prunable)) == 72 + 576 + 96
    everything = 744 + 4 * 8 + 3
    facts = seen[-1].facts
    assert facts == {
        "threshold": one.optimizer.param_groups[0]["threshold"],
        "density": (744 - sum(found.values())) / 744,
        "density_all": pytest.approx(1 - sum(found.values()) / everything),
    }
    assert facts["threshold"] > 0


def test_all_thresholds_biases_and_norms_too() -> None:
    one = trainer("grda(c=0.05,mu=0.6,select=all)")
    fit(one, on_epoch=lambda report: None)
    assert len(one.optimizer.param_groups) == 1
    assert any(count > 0 for name, count in zeros(one.network).items() if name not in masks.prunable(one.network))


def test_a_classifier_that_is_not_prunable_gets_no_zeros() -> None:
    one = trainer("grda(c=0.05,mu=0.6)", head=False)
    fit(one, on_epoch=lambda report: None)
    assert zeros(one.network)["8.weight"] == 0 and zeros(one.network)["3.weight"] > 0


def test_without_a_threshold_it_is_the_training_of_plain_sgd() -> None:
    averaged, plain = trainer("grda(c=0)"), network()
    sgd = Trainer(
        network=plain,
        forward=plain,
        spec=dataclasses.replace(SPEC, momentum=0.0, nesterov=False, weight_decay=0.0, schedule="cosine"),
        **{"data": DATA, "job": JobSpec(), "train": images(), "test": images(60), "seed": 5},  # type: ignore[arg-type]
    )
    averaged = trainer("grda(c=0)", schedule="cosine")
    fit(averaged, on_epoch=lambda report: None)
    fit(sgd, on_epoch=lambda report: None)
    assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in averaged.network.state_dict().items())


@lru_cache
def ended(text: str) -> tuple[float, float]:
    """(density, accuracy) after 300 steps."""
    seen: list[EpochReport] = []
    fit(trainer(text, epochs=30, schedule="constant"), on_epoch=seen.append)
    return seen[-1].facts["density"], seen[-1].metrics["accuracy"]


def test_density_falls_with_mu_and_accuracy_stays() -> None:
    ends = [ended(f"grda(c=0.02,mu={mu})") for mu in (0.51, 0.65, 0.8)]
    assert ends[0][0] > ends[1][0] > ends[2][0] > 0
    assert ends[0][0] < 0.9 and ends[2][0] < 0.5
    assert all(accuracy > ended("grda(c=0)")[1] - 0.05 for _, accuracy in ends)
    assert ended("grda(c=0)") == (1.0, pytest.approx(1.0, abs=0.1))


def test_density_falls_with_c() -> None:
    assert ended("grda(c=0.005,mu=0.65)")[0] > ended("grda(c=0.02,mu=0.65)")[0]


def test_a_loss_that_is_not_a_number_is_named_with_step_and_norm() -> None:
    with pytest.raises(DivergedError, match=r"^train\.loss: nan at step \d+, norm of all parameters \S+, .* is not allowed") as error:
        fit(trainer("grda(c=0.02)", lr=1e30, schedule="constant"), on_epoch=lambda report: None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grda(c=-0.1)", "grda.c: -0.1 is not allowed; allowed: >= 0 and <= 0.1"),
        ("grda(c=0.2)", "grda.c: 0.2 is not allowed; allowed: >= 0 and <= 0.1"),
        ("grda(mu=1)", "grda.mu: 1.0 is not allowed; allowed: >= 0.4 and < 1"),
        ("grda(select=convolutions)", "grda.select: 'convolutions' is not allowed; allowed: weights | all"),
        ("grda(lr=0.1)", "'lr' is not known"),
    ],
)
def test_settings_out_of_range_are_named_in_one_line(text: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        parse(text)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_bare_name_stands_for_levels_that_all_threshold() -> None:
    levels = parse("grda")[1]
    assert len(set(levels)) == len(levels) == 3
    assert all(level.c > 0 for level in levels)  # type: ignore[attr-defined]
