"""Masks of path criteria on networks that flow always passed: the bits are those of commit 82681a9, before flow knew other networks."""

import hashlib

import pytest
import torch
from torch import nn

from autosparse.models import seeding
from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.masks.mask import Scores, checksum
from autosparse.models.networks.build import build_network
from autosparse.models.networks.torchvision_guard import import_torchvision
from autosparse.models.specs.run_specs import NetworkSpec

# checksum of the mask at .05, and the first 16 hex digits of SHA-256 over all scores
OWN = {
    ("resnet8", "synflow"): ("3364dc68e42ae5f0", "a2e8ebc87ff4649f"),
    ("resnet8", "smallest_paths"): ("ffa0f496bbe660df", "9cb4f2f346d80e91"),
    ("lenet300-100", "synflow"): ("876bd8557147ad20", "26b6e9112d9362a7"),
    ("lenet300-100", "smallest_paths"): ("a39e59423330a688", "fd0fd88fd4c289e3"),
    ("row-lstm", "synflow"): ("f42c36bdab5f8ec2", "fbc8ed219007bb51"),
    ("row-lstm", "smallest_paths"): ("7903bf10eb191e86", "31d886ea61772664"),
}
LARGE = {
    ("vgg11", "synflow"): ("078dbaca3c1029cb", "49be7749f63b4665"),
    ("vgg11", "smallest_paths"): ("dc49412d9bf035b9", "0a29ffb18b489ac3"),
}
RESNET18 = ("169dd8586c290256", "65ace6d6e11bed02")


def own(name: str) -> nn.Module:
    return build_network(NetworkSpec(name=name), image_shape=(3, 32, 32), num_classes=10, seed=0)


def bits(network: nn.Module, method: str) -> tuple[str, str]:
    batches = [(torch.zeros(1, 3, 32, 32), torch.zeros(1))]
    scores: Scores = CRITERIA[method].score(network, batches, seeding.generator(0), density=0.05)
    digest = hashlib.sha256(b"".join(values.numpy().tobytes() for values in scores.values())).hexdigest()
    return checksum(CRITERIA[method].allocate(scores, 0.05)), digest[:16]


@pytest.mark.parametrize(("name", "method"), OWN)
def test_scores_and_masks_are_the_same_bits(name: str, method: str) -> None:
    assert bits(own(name), method) == OWN[name, method]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "method"), LARGE)
def test_scores_and_masks_of_large_networks_are_the_same_bits(name: str, method: str) -> None:
    assert bits(own(name), method) == LARGE[name, method]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_scores_and_masks_of_torchvisions_resnet18_are_the_same_bits() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        network = import_torchvision().models.resnet18(num_classes=10)
    assert bits(network, "synflow") == RESNET18
