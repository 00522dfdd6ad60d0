"""Frozen specs: the complete description of a run and the identity of every result.

Defaults are no-op switches only and never change, else old artifacts would answer to a new meaning. Recipes
(`flows/recipes.py`) return whole `ExperimentSpec`s; the same type is the parameter of the Prefect flow.
"""

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from autosparse.models.errors import SpecError, not_allowed
from autosparse.models.specs.fields import Spec, check_fields
from autosparse.models.specs.json_object import NOTHING, JsonObject
from autosparse.models.specs.rules import Count as Count
from autosparse.models.specs.rules import Known, Range, WithoutCredentials
from autosparse.models.specs.scorer_heads import HEADS, OWNERS, ScorerHead, Share, Strength, Tilt
from autosparse.models.specs.training import TrainSpec as TrainSpec

Density = Annotated[float, Range(above=0, most=1)]
Seed = Annotated[int, Range(least=0, below=2**31)]
Natural = Annotated[int, Range(least=0)]

SCORER = "scorer"  # the method name of the learned scorer, beside the criteria
SCORER_GROWTH = "scorer_growth"  # the scorer that looks ahead: growth takes part in its ranking
LEARNED = (SCORER, SCORER_GROWTH)
LOOKING_AHEAD = ("growth", "growth_paths", SCORER_GROWTH)
DENSE, TICKET = "dense", "ticket"  # the two ends of the scale
SPELLED = 40  # characters of keywords in a label


def _networks() -> tuple[str, ...]:
    from autosparse.models.networks.registry import NETWORKS

    return tuple(NETWORKS)


def _scorers() -> tuple[str, ...]:
    from autosparse.models.scorers.registry import SCORERS

    return tuple(SCORERS)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSpec(Spec):
    """An image data set and how its images reach the network.

    `mean` and `std` are per channel, of pixels in [0, 1]; empty = measured on the training images. `path` says where the
    files are, not what they hold: identity comes from the content digest, which a resumed run compares. `label` and `image` name columns
    where they are not obvious. With `size` every image is resized, its shorter side to that, and cropped to its middle. `test_share` of the
    training images, of each class, is the test where there is no test split; `test_seed` draws it. docs/data.md has the rest.
    """

    name: str
    path: Annotated[str, WithoutCredentials()] | None = field(default=None, metadata={"identity": False})
    download: bool = field(default=False, metadata={"identity": False})
    train_limit: Count | None = None  # the first rows, or a balanced sample where those miss classes
    test_limit: Count | None = None
    mean: tuple[float, ...] = ()
    std: tuple[Annotated[float, Range(above=0)], ...] = ()
    # shift: one offset per batch; crop: one per image; resized_crop: a window of each image, scaled to the whole
    augment: Literal["none", "shift_flip", "crop_flip", "shift", "resized_crop_flip"] = "none"
    pad: Annotated[int, Range(least=0, most=64)] = 0
    label: str | None = None
    image: str | None = None
    size: Count | None = None
    test_share: Annotated[float, Range(least=0, below=1)] = 0.0
    test_seed: Seed = 0

    @property
    def title(self) -> str:
        """The name that people know: of the folder, where there is one."""
        return self.path.rstrip("/").rsplit("/", 1)[-1] if self.path else self.name


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkSpec(Spec):
    """A network by registered name, `torchvision:NAME`, `timm:NAME`, `hf:NAME` or `package.module:factory`.

    `keywords` go to whatever builds it, beside those that we give: `image_shape`, `num_classes` and the fields here.
    """

    name: Annotated[str, Known(_networks, lambda name: ":" in name, pattern=":")]
    width: Count | None = None  # channels of the first stage; None = the paper's
    stem_stride: Annotated[int, Range(least=1, most=4)] = 1
    # own = what the definition does by itself; auto = own for `timm:`, `hf:` and `package.module:factory`, kaiming_in for all others
    init: Literal["auto", "kaiming_in", "kaiming_out", "own"] = field(default="auto", metadata={"unsaid": "kaiming_in"})
    prune_head: bool = True  # whether the classifier is prunable
    keywords: JsonObject = NOTHING

    def __post_init__(self) -> None:
        object.__setattr__(self, "keywords", JsonObject.of("keywords", self.keywords))
        check_fields(self)
        if self.init == "auto":
            outside = ":" in self.name and not self.name.startswith("torchvision:")
            object.__setattr__(self, "init", "own" if outside else "kaiming_in")

    @property
    def label(self) -> str:
        """The name in keys, tables and plots: `resnet8-w32-s2`, with keywords `timm-vit-own-depth3`, or a digest of them."""
        parts = [re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")]
        parts += [f"w{self.width}"] if self.width else []
        parts += [f"s{self.stem_stride}"] if self.stem_stride != 1 else []
        parts += [self.init.replace("_", "-")] if self.init != "kaiming_in" else []
        parts += [_short(self.keywords)] if self.keywords else []
        return "-".join(parts + ([] if self.prune_head else ["densehead"]))


def _short(keywords: JsonObject) -> str:
    """Keywords as part of a label: spelled out where they are few and whole numbers, else a digest; no two are the same."""
    spelled = "-".join(f"{name}{value}" for name, value in keywords.items())
    plain = all(type(value) is int and value >= 0 and re.fullmatch("[a-z][a-z_]*", name) for name, value in keywords.items())
    return spelled if plain and len(spelled) <= SPELLED else f"k{hashlib.sha256(keywords.text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSpec(Spec):
    """What one Ray job occupies and how it computes. `gpus_per_worker` may be a fraction, so that small arms share one.

    `step_timeout` is in seconds: a worker in which no step, evaluation or checkpoint comes to its end for so long is hung; its job is
    started again from the last checkpoint.
    """

    workers: Count = 1
    cpus_per_worker: Count = 1  # torch threads: part of the identity, because sums depend on it
    gpus_per_worker: Annotated[float, Range(least=0, most=8)] = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto = bf16 autocast on GPU, fp32 on CPU
    channels_last: bool = True
    compile: bool = False
    step_timeout: Annotated[float, Range(above=0)] = field(default=600.0, metadata={"identity": False})


@dataclass(frozen=True, kw_only=True, slots=True)
class IrpSpec(Spec):
    """Iterative rewind pruning: per network and seed, `rounds` times train, cut, rewind.

    Round r trains at density `final_density ** (r / rounds)` and then cuts to `final_density ** ((r + 1) / rounds)`. With the grain
    `channels` whole channels leave, and all of these are shares of the multiply-adds: a layer is as wide as the density in the criterion's
    cut of single weights has it (models/specs/grain.py). Each weight then outlives as many rounds as its channels.
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
    grain: Literal["weights", "channels"] = "weights"


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringSpec(Spec):
    """The batches on which gradients at initialization are taken: training images, no augmentation, BatchNorm in train mode."""

    batches: Count
    batch_size: Count
    lookahead_steps: Natural = 0  # of training before the cut, rewound afterwards; 0 = the strict track
    lookahead_lr: Annotated[float, Range(above=0)] = 0.05  # of SGD, reached in a linear warm-up over these steps

    @property
    def strict(self) -> "ScoringSpec":
        """The same batches without a probe."""
        return ScoringSpec(batches=self.batches, batch_size=self.batch_size)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorerSpec(Spec):
    """The learned scorer. `holdout_seeds` (of irp.seeds) and a share of whole layers never enter its training.

    `label` is what it learns: rounds survived, or the place of a weight in its layer by how much it grew in the first training.
    `allocation` chooses the kind of `head` (models/specs/scorer_heads.py), which has the fields from `sharpness` to `hubs_ahead` that are
    its own. Those of other kinds stay at their defaults, else the spec is refused, or are named in `unused`: there a recipe's head was
    changed for another, or the run is from before they were refused. Nothing reads them, but the names of results have them in.
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
    sharpness: Strength | None = None
    tilt: Tilt = ()
    contrast: Strength = 1.0
    contrast_ahead: Strength = 1.0
    blend: Share = 0.0
    candidates: Density = 1.0
    hubs_ahead: Share = 1.0
    seed: Seed = 0
    job: JobSpec = JobSpec()
    unused: tuple[str, ...] = field(default=(), metadata={"identity": False})

    def __post_init__(self) -> None:
        check_fields(self)
        strange = _of_others({one.name: getattr(self, one.name) for one in fields(self)})
        if wrong := [str(self._not_its_own(name)) for name in strange if name not in self.unused]:
            raise SpecError("\n".join(wrong))
        if self.unused != strange:
            raise not_allowed("unused", list(self.unused), f"{list(strange)}, what is set of other heads than {self.allocation!r}")

    @property
    def head(self) -> ScorerHead:
        """The head by itself."""
        return HEADS[self.allocation](**{name: getattr(self, name) for name, kind in OWNERS.items() if kind == self.allocation})

    @classmethod
    def settle(cls, data: dict[str, Any], named: Collection[str]) -> None:
        """What is set of another head and was not asked for now came with a recipe, or an old run: it is `unused`."""
        if "unused" not in named:
            data["unused"] = [name for name in _of_others(data) if name not in named]

    def _not_its_own(self, name: str) -> SpecError:
        usual = f"{_plain(_defaults()[name])!r} beside allocation {self.allocation!r}, others beside {OWNERS[name]!r}"
        return not_allowed(name, _plain(getattr(self, name)), f"{usual}; an old run that has it names it in unused")


def _of_others(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Of the fields of a `ScorerSpec`, also as plain data: those that differ from their default and belong to a head not chosen."""
    usual = _defaults()
    chosen = values.get("allocation", usual["allocation"])
    others = (name for name, kind in OWNERS.items() if kind != chosen)
    return tuple(name for name in others if name in values and _plain(values[name]) != _plain(usual[name]))


def _defaults() -> dict[str, Any]:
    return {one.name: one.default for one in fields(ScorerSpec)}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
