"""A masked training of 100 steps on the device: precision, layout, compilation, masks, and what is taken up again."""

from pathlib import Path

import pytest
import torch

from autosparse.models import seeding
from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import global_topk
from autosparse.models.networks.build import build_network
from autosparse.models.specs.run_specs import DataSpec, JobSpec, NetworkSpec, TrainSpec
from autosparse.models.training.images import ImageSet
from autosparse.models.training.loop import fit
from autosparse.models.training.trainer import Trainer
from autosparse.storage.checkpoints import load_training_state, save_training_state

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")]  # of torch.compile itself

CPU, PER_EPOCH, EPOCHS = torch.device("cpu"), 20, 5
DATA = DataSpec(name="digits", mean=(0.5,) * 3, std=(0.25,) * 3, augment="shift_flip", pad=1)
TRAIN = TrainSpec(epochs=EPOCHS, batch_size=32, lr=0.02, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule="onecycle", warmup=0.2)
FLOAT32 = JobSpec(precision="fp32", channels_last=False)


def trainer(device: torch.device, job: JobSpec) -> Trainer:
    """Four classes of images that differ in their mean, which a ResNet-8 of width 8 under a random mask learns."""
    stream = seeding.generator(0)
    labels = torch.arange(32 * PER_EPOCH) % 4
    pixels = torch.randint(0, 128, (len(labels), 3, 8, 8), generator=stream) + 40 * labels.view(-1, 1, 1, 1)
    images = ImageSet(pixels.to(torch.uint8).to(device), labels.to(device))
    network = build_network(NetworkSpec(name="resnet8", width=8), image_shape=(3, 8, 8), num_classes=4, seed=1)
    mask = global_topk({name: torch.rand(param.shape, generator=stream) for name, param in masks.prunable(network).items()}, 0.2)
    layout = torch.channels_last if job.channels_last else torch.contiguous_format
    network = network.to(device, memory_format=layout)  # type: ignore[call-overload]
    forward = torch.compile(network) if job.compile else network
    held = {name: keep.to(device) for name, keep in mask.items()}
    kinds = {"spec": TRAIN, "data": DATA, "job": job, "train": images, "test": images, "seed": 3, "mask": held}
    return Trainer(network=network, forward=forward, **kinds)  # type: ignore[arg-type]


def losses(one: Trainer) -> list[float]:
    found: list[float] = []
    fit(one, on_epoch=lambda report: found.append(report.loss))
    return found


@pytest.mark.parametrize(
    ("job", "rel"),
    [
        pytest.param(FLOAT32, 0.03, id="tf32"),
        pytest.param(JobSpec(precision="fp32"), 0.03, id="channels_last"),
        pytest.param(JobSpec(precision="bf16"), 0.15, id="bf16"),  # eight bits: a hundredth in each product
        pytest.param(JobSpec(precision="bf16", compile=True), 0.15, id="bf16-compiled"),
    ],
)
def test_a_hundred_steps_learn_what_the_cpu_learns_and_masks_stay_exactly_zero(job: JobSpec, rel: float, device: torch.device) -> None:
    expected, one = losses(trainer(CPU, FLOAT32)), trainer(device, job)
    found = losses(one)
    assert one.step == 100 and one.mask is not None and masks.violations(one.network, one.mask) == 0
    assert found == pytest.approx(expected, rel=rel, abs=rel * expected[0]) and found[-1] < 0.7 * found[0]
    assert all(param.dtype == torch.float32 and param.device.type == device.type for param in one.network.parameters())
    weight = one.network.get_parameter("stages.1.0.conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last if job.channels_last else torch.contiguous_format)
    torch.compiler.reset()


def test_restored_momentum_has_the_layout_of_its_weight_and_goes_on(device: torch.device, tmp_path: Path) -> None:
    job = JobSpec(precision="bf16")
    whole, again, expected = trainer(device, job), trainer(device, job), []

    def keep(report: object) -> None:
        expected.append(report.loss)  # type: ignore[attr-defined]
        if len(expected) == 2:
            save_training_state(tmp_path, whole.network.state_dict(), whole.state(), {"step": whole.step})

    fit(whole, on_epoch=keep)
    kept = load_training_state(tmp_path)
    again.restore(kept.network, kept.optimizer, kept.progress["step"])
    for param in again.network.parameters():
        momentum = again.optimizer.state[param]["momentum_buffer"]
        assert momentum.stride() == param.stride() and momentum.device == param.device
    assert losses(again) == pytest.approx(expected[2:], rel=0.15, abs=0.05)
    assert again.mask is not None and masks.violations(again.network, again.mask) == 0
