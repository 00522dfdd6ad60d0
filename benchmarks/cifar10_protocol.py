"""The published protocol on CIFAR-10: what an arm of `benchmarks.cifar10_gpu` is made under, whatever the method.

That of ganguli-lab/Synaptic-Flow, whose published tables have the same networks and densities: SGD with Nesterov momentum .9,
batches of 128, 160 epochs, learning rate cut after epochs 60 and 120, crops of 4 and mirroring. ResNet-18: learning rate .01
cut to a fifth, weight decay 5e-4; VGG-16: .1 cut to a tenth, 1e-4. A shorter schedule cuts at the same shares of it. Different
from there: accuracy after the last epoch instead of the best one, scores on 20 batches of 256 images with BatchNorm in train
mode instead of 10 images per class.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from autosparse.models.errors import not_allowed, unknown_name
from autosparse.models.specs.fields import fingerprint
from autosparse.models.specs.protocol import Protocol
from autosparse.models.specs.run_specs import DENSE, DataSpec, JobSpec, NetworkSpec, ScoringSpec, TrainSpec

DENSITIES = (0.1, 0.0316, 0.01, 0.00316, 0.001)
EPOCHS, MILESTONES = 160, (60, 120)
SCORING = ScoringSpec(batches=20, batch_size=256)
IMAGES = DataSpec(name="parquet", mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.243, 0.262), augment="crop_flip", pad=4)
JOB = JobSpec(precision="bf16", channels_last=True)

SMOKE_DENSITIES = (0.1, 0.01)
SMOKE_WIDTH = 4
SMOKE_SCORING = ScoringSpec(batches=2, batch_size=64)
SMOKE_IMAGES = DataSpec(name="digits", train_limit=256, test_limit=64, mean=(0.3,), std=(0.37,), augment="crop_flip", pad=1)


class Published(NamedTuple):
    """What differs between the networks; `init` of the ResNet leaves the classifier as PyTorch draws it, as published."""

    init: str
    lr: float
    gamma: float
    weight_decay: float


NETWORKS = {"resnet18": Published("kaiming_out", 0.01, 0.2, 5e-4), "vgg16": Published("kaiming_in", 0.1, 0.1, 1e-4)}


class Arm(NamedTuple):
    """One training: a network, pruned by a method to a density, all drawn from one seed."""

    network: str
    method: str
    density: float
    seed: int

    def __str__(self) -> str:
        return f"{self.network} {self.method} {self.density:g} seed {self.seed}"


@dataclass(frozen=True)
class Setting:
    """What the arms of one network share."""

    network: NetworkSpec
    protocol: Protocol
    job: JobSpec

    def fields(self, data_digest: str) -> dict[str, Any]:
        """What has to be the same in two arms of one file, by name; `compile` only says how fast."""
        return {
            "epochs": self.protocol.train.epochs,
            "network": fingerprint(self.network),
            "precision": self.job.precision,
            "data_digest": data_digest,
            **self.protocol.fields(),
        }


def setting(name: str, epochs: int, *, compiled: bool, smoke: bool = False) -> Setting:
    """The protocol of a network of `NETWORKS` at `epochs` epochs; `smoke`: on small images, in small. Raises SpecError."""
    published = NETWORKS[name]
    return Setting(
        network=NetworkSpec(name=name, init=published.init, width=SMOKE_WIDTH if smoke else None),  # type: ignore[arg-type]
        protocol=Protocol(
            data=SMOKE_IMAGES if smoke else IMAGES, train=schedule(published, epochs), scoring=SMOKE_SCORING if smoke else SCORING
        ),
        job=JobSpec(precision=JOB.precision, channels_last=JOB.channels_last, compile=compiled),
    )


def schedule(published: Published, epochs: int) -> TrainSpec:
    """The training of `epochs` epochs; the rate is cut at the epochs nearest to 60/160 and 120/160 of them, never before the first."""
    return TrainSpec(
        epochs=epochs,
        batch_size=128,
        lr=published.lr,
        momentum=0.9,
        nesterov=True,
        weight_decay=published.weight_decay,
        schedule="steps",
        milestones=tuple(max(1, round(epochs * mark / EPOCHS)) for mark in MILESTONES),
        gamma=published.gamma,
    )


def plan(networks: list[str], methods: list[str], densities: list[float], seeds: list[int]) -> list[Arm]:
    """All arms, seed by seed and network by network; `dense` has one arm, of density 1.

    Raises SpecError for an unknown network, a density out of (0, 1], and a value given twice.
    """
    for name, values in (("networks", networks), ("methods", methods), ("densities", densities), ("seeds", seeds)):
        if len(set(values)) != len(values):
            raise not_allowed(name, values, "no two the same")
    for network in networks:
        if network not in NETWORKS:
            raise unknown_name("networks", network, NETWORKS)
    for density in densities:
        if not 0 < density <= 1:
            raise not_allowed("densities", density, "> 0 and <= 1")
    whole = [(DENSE, 1.0)] if DENSE in methods else []
    cells = whole + [(method, density) for density in densities for method in methods if method != DENSE]
    return [Arm(network, method, density, seed) for seed in seeds for network in networks for method, density in cells]
