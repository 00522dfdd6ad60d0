"""Looking ahead: the steps on paper, the network untouched, a score that is what training did."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from autosparse.flows.recipes import demo, smoke
from autosparse.models import seeding
from autosparse.models.criteria.growth import growth_under
from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.errors import SpecError
from autosparse.models.gradients import ScoringBatches
from autosparse.models.masks.mask import Mask
from autosparse.models.specs.fields import fingerprint, override
from autosparse.models.specs.run_specs import DataSpec, JobSpec, TrainSpec
from autosparse.models.training.images import ImageSet
from autosparse.models.training.lookahead import look_ahead
from autosparse.models.training.loop import batches
from autosparse.models.training.trainer import Trainer

TRAIN = TrainSpec(epochs=1, batch_size=4, lr=0.3, momentum=0.0, nesterov=False, weight_decay=0.0, schedule="constant")
DATA = DataSpec(name="digits", mean=(0.0,), std=(1.0,))


def trainer(network: nn.Module, images: int = 8) -> Trainer:
    stream = seeding.generator(0, "images")
    pixels = torch.randint(0, 256, (images, 1, 2, 2), generator=stream, dtype=torch.uint8)
    train = ImageSet(pixels, torch.randint(0, 3, (images,), generator=stream))
    return Trainer(network=network, forward=network, spec=TRAIN, data=DATA, job=JobSpec(), train=train, test=train, seed=7)


def linear() -> nn.Sequential:
    with seeding.scoped(1, "test"):
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))


def test_two_steps_are_plain_gradient_descent_with_a_rising_rate() -> None:
    network = linear()
    expected = copy.deepcopy(network)
    for rate, (images, labels) in zip((0.1, 0.2), batches(trainer(expected), 0), strict=True):
        loss = nn.functional.cross_entropy(expected(images), labels)
        (slope,) = torch.autograd.grad(loss, list(expected.parameters()))
        with torch.no_grad():
            expected[1].weight -= rate * slope
    found = look_ahead(trainer(network), steps=2, lr=0.2)
    assert torch.allclose(found[1].weight, expected[1].weight, atol=1e-7)  # type: ignore[index]


def test_it_goes_on_into_the_next_epoch_and_stops_where_it_is_told() -> None:
    one = trainer(linear())
    look_ahead(one, steps=5, lr=0.1)
    assert one.step == 5  # two steps an epoch


def test_growth_is_the_change_of_magnitude_and_leaves_the_network_alone() -> None:
    network, target = linear(), linear()
    with torch.no_grad():
        target[1].weight.copy_(network[1].weight * torch.tensor([[2.0, -3.0, 0.5, -0.5]]))  # type: ignore[operator]
    given = ScoringBatches()
    given.look_ahead = lambda asked, mask: target if asked is network and mask is None else None  # type: ignore[assignment,return-value]
    before = network[1].weight.detach().clone()  # type: ignore[operator]
    scores = CRITERIA["growth"].score(network, given, seeding.generator(0), density=0.1)
    assert torch.allclose(scores["1.weight"], before.abs() * torch.tensor([[1.0, 2.0, -0.5, -0.5]]))
    assert torch.equal(network[1].weight, before)  # type: ignore[arg-type]


def test_growth_under_a_mask_trains_what_the_mask_keeps() -> None:
    network, asked = linear(), []
    given = ScoringBatches()

    def ahead(start: nn.Module, mask: Mask | None) -> nn.Module:
        asked.append(mask)
        one = dataclasses.replace(trainer(copy.deepcopy(start)), mask=mask)
        return look_ahead(one, steps=2, lr=0.2)

    given.look_ahead = ahead
    weight = network[1].weight.detach().clone()  # type: ignore[operator]
    mask = {"1.weight": torch.arange(12).view(3, 4) % 3 > 0}
    found = growth_under(mask)(network, given, seeding.generator(0), density=0.1)["1.weight"]
    assert asked == [mask]
    assert torch.equal(found[~mask["1.weight"]], -weight.abs()[~mask["1.weight"]])
    assert bool((found[mask["1.weight"]] != 0).all())
    assert torch.equal(network[1].weight, weight)  # type: ignore[arg-type]


def test_batches_that_cannot_look_ahead_are_refused() -> None:
    for given in ([], ScoringBatches()):
        with pytest.raises(SpecError, match=r"scoring.lookahead_steps: 0 is not allowed; allowed: >= 1"):
            CRITERIA["growth"].score(linear(), given, seeding.generator(0), density=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fanout.methods": ["growth"]}, r"scoring.lookahead_steps: 0 is not allowed; allowed: >= 1 for growth"),
        (
            {"fanout.methods": ["scorer_growth"], "scoring.lookahead_steps": 5, "scorer.allocation": "global"},
            "scorer.allocation: 'global' is not allowed",
        ),
        (
            {"fanout.methods": ["growth"], "scoring.lookahead_steps": 5, "fanout.controls": ["random_labels"]},
            r"fanout.controls: \['random_labels'\] is not allowed",
        ),
    ],
)
def test_a_spec_that_cannot_look_ahead_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        override(smoke(), changes)


def test_defaults_name_the_same_results_as_before() -> None:
    spec = demo()
    again = dataclasses.replace(spec, scoring=dataclasses.replace(spec.scoring, lookahead_steps=0, lookahead_lr=0.05))
    assert fingerprint(again) == fingerprint(spec)
