"""Every criterion and every method for a few steps on the device against the CPU's float32.

TF32 has ten bits, so products are off by a thousandth: scores near the cut change places, and losses drift from step to step.
"""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from autosparse.models import seeding
from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.gradients import ScoringBatches
from autosparse.models.masks import mask as masks
from autosparse.models.masks.mask import Mask
from autosparse.models.methods.contract import Parts, Setup
from autosparse.models.methods.registry import METHODS, level_name
from autosparse.models.networks.build import build_network
from autosparse.models.specs.run_specs import DataSpec, JobSpec, NetworkSpec, TrainSpec
from autosparse.models.training.images import ImageSet
from autosparse.models.training.loop import fit
from autosparse.models.training.trainer import Trainer

pytestmark = pytest.mark.gpu

CPU, DENSITY = torch.device("cpu"), 0.1
SAME, LOSS = 0.9, 0.05  # of a mask's weights; relative
NETWORKS = {
    "resnet8": (NetworkSpec(name="resnet8", width=4), (3, 12, 12)),
    "row-lstm": (NetworkSpec(name="row-lstm", width=8), (3, 8, 8)),
    "local-mixer": (NetworkSpec(name="local-mixer"), (3, 8, 8)),
}
DATA = DataSpec(name="digits", mean=(0.5,) * 3, std=(0.25,) * 3, augment="shift_flip", pad=1)
TRAIN = TrainSpec(epochs=3, batch_size=16, lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule="constant")
LEVELS = [pytest.param(name, level, id=level_name(name, level)) for name, method in METHODS.items() for level in method.levels]


def network(name: str) -> nn.Module:
    spec, shape = NETWORKS[name]
    return build_network(spec, image_shape=shape, num_classes=10, seed=0)


def ahead(network: nn.Module, mask: Mask | None) -> nn.Module:
    """In the place of a short training, which would be another one on each device."""
    grown = deepcopy(network)
    with torch.no_grad():
        for index, param in enumerate(masks.prunable(grown).values()):
            noise = torch.rand(param.shape, generator=seeding.generator(index)).to(param)
            param.mul_(1 + noise)
    if mask is not None:
        masks.apply_(grown, mask)
    return grown


def cut(criterion: str, name: str, device: torch.device) -> dict[str, Tensor]:
    stream, (_, shape) = seeding.generator(1, "batches"), NETWORKS[name]
    batches = ScoringBatches(
        (torch.randn(16, *shape, generator=stream).to(device), torch.randint(10, (16,), generator=stream).to(device)) for _ in range(2)
    )
    batches.look_ahead = ahead
    chosen = CRITERIA[criterion]
    scores = chosen.score(network(name).to(device), batches, seeding.generator(3), head=True, density=DENSITY)
    assert all(score.isfinite().all() for score in scores.values())
    return {layer: keep.cpu() for layer, keep in chosen.allocate(scores, DENSITY).items()}


@pytest.mark.parametrize("name", ["resnet8", "row-lstm"])
@pytest.mark.parametrize("criterion", sorted(CRITERIA))
def test_a_criterion_keeps_the_weights_that_it_keeps_on_the_cpu(criterion: str, name: str, device: torch.device) -> None:
    expected, found = cut(criterion, name, CPU), cut(criterion, name, device)
    both = {layer: keep & found[layer] for layer, keep in expected.items()}
    assert masks.kept(found) == masks.kept(expected)
    assert masks.kept(both) >= SAME * masks.kept(expected)


def losses(name: str, level: object, device: torch.device) -> list[float]:
    """Of each epoch, on the first network that the method does not refuse."""
    method = METHODS[name]
    for known in NETWORKS:
        _, shape = NETWORKS[known]
        built = network(known).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        stream = seeding.generator(2)
        pixels, labels = torch.randint(0, 256, (32, *shape), generator=stream, dtype=torch.uint8), torch.arange(32) % 10
        images = ImageSet(pixels.to(device), labels.to(device))
        density = 0.5 if method.by_density else None
        found = Setup(network=built, train=TRAIN, density=density, head=True, image_shape=shape, steps_per_epoch=2, seed=3)
        if method.refuses(found, level) is None:  # type: ignore[arg-type]
            break
    parts: Parts = method.parts(found, level)  # type: ignore[arg-type]
    job = JobSpec(precision="fp32")
    trainer = Trainer(network=built, forward=built, spec=TRAIN, data=DATA, job=job, train=images, test=images, seed=found.seed, parts=parts)
    history: list[float] = []
    fit(trainer, on_epoch=lambda report: history.append(report.loss))
    return history


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_a_method_trains_as_on_the_cpu(name: str, level: object, device: torch.device) -> None:
    assert losses(name, level, device) == pytest.approx(losses(name, level, CPU), rel=LOSS)
