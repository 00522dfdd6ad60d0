"""The specs of what comes after the scorer: targets, the arms on them, and what is measured between their minima."""

from dataclasses import dataclass
from typing import Annotated

from autosparse.models.errors import not_allowed
from autosparse.models.methods import names as method_names
from autosparse.models.specs.fields import check_fields, fingerprint
from autosparse.models.specs.rules import Known, Range
from autosparse.models.specs.run_specs import Count, DataSpec, Density, JobSpec, Natural, NetworkSpec, Seed, Spec, TrainSpec

Methods = tuple[Annotated[str, Known(method_names.known, method_names.is_open, pattern=method_names.LEVEL)], ...]


def _controls() -> tuple[str, ...]:
    from autosparse.models.arms.controls import CONTROLS

    return tuple(CONTROLS)


def _probes() -> tuple[str, ...]:
    from autosparse.models.probes.registry import PROBES

    return tuple(PROBES)


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetSpec(Spec):
    """A network to prune at initialization; `data` None means the data of the run, no `methods` means those of the fan-out."""

    network: NetworkSpec
    data: DataSpec | None = None
    methods: Methods = ()

    def __post_init__(self) -> None:
        method_names.spell(self)
        check_fields(self)

    @property
    def label(self) -> str:
        """The name in keys: the network's, and the data's where it is not that of the run."""
        return f"{self.network.label}-{fingerprint(self.data)}" if self.data else self.network.label


@dataclass(frozen=True, kw_only=True, slots=True)
class FanoutSpec(Spec):
    """Arms = targets x methods x densities x seeds, each pruned at initialization and retrained; dense and ticket beside them
    (where tickets are trained: `autosparse.models.arms.plan.ticket_targets`).

    A method that replaces parts of the training (models/methods) is named with its settings, `grda(c=0.005,mu=0.65)`, or by its bare
    name for its usual levels; one without a density target has one arm per level. A criterion or method of one's own is named
    `package.module:object`. Each arm of a mask at initialization comes once more for every one of `controls`. `repair` gives the
    places of dead weights to weights on a path (models/masks/repair.py), in all masks that are cut from scores. `compact` trains each arm
    of a mask, tickets and controls among them, as the smaller network without the channels that its mask cut off; dense arms and methods
    that train otherwise stay as they are. `shares` are those of other costs than weights, at which `narrow` arms and methods with a grain
    are cut (models/specs/grain.py); none means the densities.
    """

    targets: tuple[TargetSpec, ...]
    methods: Methods
    densities: tuple[Density, ...]
    seeds: tuple[Seed, ...]
    train: TrainSpec
    dense: bool = True
    ticket: bool = True
    min_per_layer: Natural = 0
    job: JobSpec = JobSpec()
    controls: tuple[Annotated[str, Known(_controls)], ...] = ()
    repair: bool = False
    compact: bool = False
    shares: tuple[Density, ...] = ()

    def __post_init__(self) -> None:
        method_names.spell(self)
        check_fields(self)

    @property
    def all_methods(self) -> tuple[str, ...]:
        """Of the fan-out and of all targets."""
        return tuple(dict.fromkeys([*self.methods, *(method for target in self.targets for method in target.methods)]))


@dataclass(frozen=True, kw_only=True, slots=True)
class ValleySpec(Spec):
    """Pairs of arms whose minima are compared after the fan-out (docs/valley.md); an arm is named as in `autosparse.models.arms.names`.

    `seed` is that of arms which name none (default: the first of the fan-out, for tickets of the IRP); no `probes` means all of them.
    `images` training images in batches of `batch_size` carry curve, plane and norms, the first `curvature_images` of them Hessian and
    noise. The bend takes `steps` of SGD; `points` are measured on curve and straight line, `size` x `size` cells on the plane; `k`
    eigenvalues out of `iterations` of Lanczos. The defaults take at most three minutes on one thread for a ResNet-8 of width 32.
    """

    pairs: tuple[tuple[str, ...], ...] = ()
    seed: Seed | None = None
    probes: tuple[Annotated[str, Known(_probes)], ...] = ()
    images: Annotated[int, Range(least=2)] = 2000
    batch_size: Annotated[int, Range(least=2)] = 125
    steps: Count = 200
    lr: Annotated[float, Range(above=0)] = 0.1
    momentum: Annotated[float, Range(least=0, below=1)] = 0.9
    points: Annotated[int, Range(least=2)] = 17
    size: Annotated[int, Range(least=2)] = 9
    margin: Annotated[float, Range(least=0)] = 0.2
    curvature_images: Annotated[int, Range(least=2)] = 500
    k: Annotated[int, Range(least=2)] = 5
    iterations: Count = 20

    def __post_init__(self) -> None:
        check_fields(self)
        if self.iterations < self.k:
            raise not_allowed("iterations", self.iterations, f">= k = {self.k}")
