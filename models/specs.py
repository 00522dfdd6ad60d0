"""Frozen specs: the complete description of a run and the identity of every result.

Defaults are no-op switches only and never change, else old artifacts would answer to a new meaning. Recipes
(`flows/recipes.py`) return whole `ExperimentSpec`s; the same type is the parameter of the Prefect flow.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from models import method_names
from models.errors import SpecError, not_allowed
from models.spec_fields import Known, Range, check_fields, fingerprint

Density = Annotated[float, Range(above=0, most=1)]
Seed = Annotated[int, Range(least=0, below=2**31)]
Count = Annotated[int, Range(least=1)]
Natural = Annotated[int, Range(least=0)]
Methods = tuple[Annotated[str, Known(method_names.known, method_names.is_level, pattern=method_names.LEVEL)], ...]

SCORER = "scorer"  # the method name of the learned scorer, beside the criteria
SCORER_GROWTH = "scorer_growth"  # its learned layer densities, filled by growth: the scorer that looks ahead
LEARNED = (SCORER, SCORER_GROWTH)
LOOKING_AHEAD = ("growth", SCORER_GROWTH)
TILTS = 6  # the length of allocation_head.CONTEXT, which a test compares
DENSE, TICKET = "dense", "ticket"  # the two ends of the scale


def _networks() -> tuple[str, ...]:
    from models.networks.registry import NETWORKS

    return tuple(NETWORKS)


def _controls() -> tuple[str, ...]:
    from models.controls import CONTROLS

    return tuple(CONTROLS)


def _probes() -> tuple[str, ...]:
    from models.probes.registry import PROBES

    return tuple(PROBES)


def _scorers() -> tuple[str, ...]:
    from models.scorers.registry import SCORERS

    return tuple(SCORERS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """Base of all specs: unknown keys are refused, each field is checked against its declaration."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSpec(Spec):
    """An image data set and how its images reach the network.

    `mean` and `std` are per channel, of pixels in [0, 1]; empty = measured on the training images. `path` says where the
    files are, not what they hold: identity comes from the content digest, which a resumed run compares.
    """

    name: str
    path: str | None = field(default=None, metadata={"identity": False})
    download: bool = field(default=False, metadata={"identity": False})
    train_limit: Count | None = None  # first rows only
    test_limit: Count | None = None
    mean: tuple[float, ...] = ()
    std: tuple[Annotated[float, Range(above=0)], ...] = ()
    augment: Literal["none", "shift_flip", "crop_flip", "shift"] = "none"  # shift: one offset per batch; crop: one per image
    pad: Annotated[int, Range(least=0, most=64)] = 0

    @property
    def title(self) -> str:
        """The name that people know: of the folder, where there is one."""
        return self.path.rstrip("/").rsplit("/", 1)[-1] if self.path else self.name


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkSpec(Spec):
    """A network by registered name, `torchvision:NAME` or `package.module:factory`."""

    name: Annotated[str, Known(_networks, lambda name: ":" in name, open_ended=True)]
    width: Count | None = None  # channels of the first stage; None = the paper's
    stem_stride: Annotated[int, Range(least=1, most=4)] = 1
    init: Literal["kaiming_in", "kaiming_out", "own"] = "kaiming_in"  # own = what the definition's layers do by themselves
    prune_head: bool = True  # whether the classifier is prunable

    @property
    def label(self) -> str:
        """The name in keys, tables and plots: `resnet8-w32-s2`."""
        parts = [re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")]
        parts += [f"w{self.width}"] if self.width else []
        parts += [f"s{self.stem_stride}"] if self.stem_stride != 1 else []
        parts += [self.init.replace("_", "-")] if self.init != "kaiming_in" else []
        return "-".join(parts + ([] if self.prune_head else ["densehead"]))


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSpec(Spec):
    """One training: SGD on cross entropy, the last short batch dropped, weight decay on every parameter.

    `batch_size` counts the images of one step over all workers. `warmup` is the rising share of the one-cycle schedule
    (other values as in torch.optim.lr_scheduler.OneCycleLR); `milestones` are epochs, each multiplies lr by `gamma`.
    """

    epochs: Count
    batch_size: Count
    lr: Annotated[float, Range(above=0)]
    momentum: Annotated[float, Range(least=0, below=1)]
    nesterov: bool
    weight_decay: Annotated[float, Range(least=0)]
    schedule: Literal["constant", "onecycle", "steps", "cosine"]
    warmup: Annotated[float, Range(above=0, below=1)] = 0.3
    milestones: tuple[Count, ...] = ()
    gamma: Annotated[float, Range(above=0, most=1)] = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSpec(Spec):
    """What one Ray job occupies and how it computes. `gpus_per_worker` may be a fraction, so that small arms share one."""

    workers: Count = 1
    cpus_per_worker: Count = 1  # torch threads: part of the identity, because sums depend on it
    gpus_per_worker: Annotated[float, Range(least=0, most=8)] = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto = bf16 autocast on GPU, fp32 on CPU
    channels_last: bool = True
    compile: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class IrpSpec(Spec):
    """Iterative rewind pruning: per network and seed, `rounds` times train, cut, rewind.

    Round r trains at density `final_density ** (r / rounds)` and then cuts to `final_density ** ((r + 1) / rounds)`.
    """

    networks: tuple[NetworkSpec, ...]
    seeds: tuple[Seed, ...]
    rounds: Annotated[int, Range(least=1, most=200)]
    final_density: Density
    criterion: Literal["magnitude", "snip"]
    train: TrainSpec
    rewind_step: Natural = 0  # survivors return to their value after this many steps of round 0
    min_per_layer: Natural = 0  # floor of kept weights in each layer
    job: JobSpec = JobSpec()


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringSpec(Spec):
    """The batches on which gradients at initialization are taken: training images, no augmentation, BatchNorm in train mode."""

    batches: Count
    batch_size: Count
    lookahead_steps: Natural = 0  # of dense training before the cut, rewound afterwards; 0 = the strict track
    lookahead_lr: Annotated[float, Range(above=0)] = 0.05  # reached in a linear warm-up over these steps


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorerSpec(Spec):
    """The learned scorer. `holdout_seeds` (of irp.seeds) and a share of whole layers never enter its training.

    `label` is what it learns: rounds survived, or the place of a weight in its layer by how much it grew in the first training.
    `allocation` "learned" adds the head for layer densities (models/allocation_head.py): held-out layers are unseen in its evaluation,
    but the head that is kept is fitted once more to every layer of the training seeds. `sharpness` says how far the ranking from
    the state at initialization counts inside a layer (None = as it is, 0.0 = at random). `tilt` is added to the head's slopes, one
    number per entry of its CONTEXT: what tickets do not teach, found by trying arms on validation images of seeds that are neither
    in `irp.seeds` nor in `fanout.seeds`.

    `allocation` "paths" lets paths compete by the ranking inside layers (models/path_allocation.py): `contrast` says how far it
    counts, `contrast_ahead` the same where the scorer looks ahead, `blend` how much of it is mixed into growth there.
    """

    kind: Annotated[str, Known(_scorers)]
    epochs: Count
    batch_size: Count
    lr: Annotated[float, Range(above=0)]
    holdout_layers: Annotated[float, Range(least=0, below=1)]
    holdout_seeds: tuple[Seed, ...] = ()
    hidden: tuple[Count, ...] = (32, 32)
    label: Literal["survival", "growth"] = "survival"
    allocation: Literal["global", "learned", "paths"] = "global"
    sharpness: Annotated[float, Range(least=0)] | None = None
    tilt: tuple[float, ...] = ()
    contrast: Annotated[float, Range(least=0)] = 1.0
    contrast_ahead: Annotated[float, Range(least=0)] = 1.0
    blend: Annotated[float, Range(least=0, most=1)] = 0.0
    seed: Seed = 0
    job: JobSpec = JobSpec()


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
    """Arms = targets x methods x densities x seeds, each pruned at initialization and retrained; dense and ticket beside them.

    A method that replaces parts of the training (models/methods) is named with its settings, `grda(c=0.005,mu=0.65)`, or by its bare
    name for its usual levels; one without a density target has one arm per level. Each arm of a mask at initialization comes
    once more for every one of `controls`. `repair` gives the places of dead weights to weights on
    a path (models/repair.py), in all masks that are cut from scores.
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

    def __post_init__(self) -> None:
        method_names.spell(self)
        check_fields(self)

    @property
    def all_methods(self) -> tuple[str, ...]:
        """Of the fan-out and of all targets."""
        return tuple(dict.fromkeys([*self.methods, *(method for target in self.targets for method in target.methods)]))


@dataclass(frozen=True, kw_only=True, slots=True)
class ValleySpec(Spec):
    """Pairs of arms whose minima are compared after the fan-out (docs/valley.md); an arm is named as in `models.arm_names`.

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


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentSpec(Spec):
    """A whole pipeline run: IRP, feature data set, scorer, fan-out, and what is measured between its arms."""

    data: DataSpec
    irp: IrpSpec
    scoring: ScoringSpec
    scorer: ScorerSpec
    fanout: FanoutSpec
    valley: ValleySpec = ValleySpec()

    def __post_init__(self) -> None:
        check_fields(self)
        for name, items in (
            ("irp.networks", [network.label for network in self.irp.networks]),
            ("irp.seeds", self.irp.seeds),
            ("fanout.targets", [target.label for target in self.fanout.targets]),
            ("fanout.methods", self.fanout.methods),
            ("fanout.densities", self.fanout.densities),
            ("fanout.seeds", self.fanout.seeds),
        ):
            if not items or len(set(items)) != len(items):
                raise not_allowed(name, list(items), "at least one entry, no two the same")
        optional = {f"fanout.targets.{index}.methods": target.methods for index, target in enumerate(self.fanout.targets)}
        for name, items in {"fanout.controls": self.fanout.controls, **optional}.items():
            if len(set(items)) != len(items):
                raise not_allowed(name, list(items), "no two the same")
        self._check_seeds()
        self._check_lookahead()

    def data_of(self, target: TargetSpec) -> DataSpec:
        """The data of a target; one that names no path finds the same kind of files where the run does."""
        if target.data is None:
            return self.data
        if target.data.path is None and target.data.name == self.data.name:
            return replace(target.data, path=self.data.path)
        return target.data

    def _check_lookahead(self) -> None:
        ahead = sorted(set(LOOKING_AHEAD) & set(self.fanout.all_methods))
        if ahead and not self.scoring.lookahead_steps:
            raise not_allowed("scoring.lookahead_steps", 0, f">= 1 for {', '.join(ahead)}")
        if SCORER_GROWTH in ahead and self.scorer.allocation == "global":
            raise not_allowed("scorer.allocation", self.scorer.allocation, f"'learned' or 'paths' for {SCORER_GROWTH}")
        spoiled = sorted({"random_labels", "random_pixels"} & set(self.fanout.controls))
        if ahead and spoiled:
            raise not_allowed("fanout.controls", spoiled, f"none that spoils scoring batches beside {', '.join(ahead)}")

    def _check_seeds(self) -> None:
        strangers = set(self.scorer.holdout_seeds) - set(self.irp.seeds)
        if strangers or set(self.scorer.holdout_seeds) == set(self.irp.seeds):
            raise not_allowed(
                "scorer.holdout_seeds", list(self.scorer.holdout_seeds), f"some, not all, of irp.seeds {list(self.irp.seeds)}"
            )
        if len(self.scorer.tilt) not in (0, TILTS):
            raise not_allowed("scorer.tilt", list(self.scorer.tilt), f"{TILTS} numbers, or none")
        if not self.scorer.holdout_seeds and not self.scorer.holdout_layers:
            raise SpecError("scorer.holdout_layers: 0.0 is not allowed; allowed: > 0 where scorer.holdout_seeds is empty")
        shared = set(self.irp.seeds) & set(self.fanout.seeds)
        if shared and set(LEARNED) & set(self.fanout.all_methods):
            raise not_allowed("fanout.seeds", list(self.fanout.seeds), f"seeds the scorer has not seen; irp.seeds has {sorted(shared)} too")
