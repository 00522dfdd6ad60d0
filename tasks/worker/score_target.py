"""Pruning at initialization on Ray: score a target once, cut at every density, and make the masks of its controls."""

import time
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from torch import nn

from autosparse.library.scorer_files import features_seen, load_scorer
from autosparse.models import seeding
from autosparse.models.arms.controls import CONTROLS, Control
from autosparse.models.channels.examples import example_of
from autosparse.models.channels.grain import Grained
from autosparse.models.criteria.checked import checked
from autosparse.models.criteria.registry import Criterion, find_criterion
from autosparse.models.errors import not_allowed
from autosparse.models.gradients import Batches
from autosparse.models.masks import gates
from autosparse.models.masks.mask import Mask, Scores
from autosparse.models.masks.repair import repair
from autosparse.models.methods.names import family, is_learned, looks_ahead
from autosparse.models.networks.calls import Shape, fitted
from autosparse.models.scorers.criterion import as_criterion, inputs, looking_ahead
from autosparse.models.scorers.drift import FirstLook, compare
from autosparse.models.specs.fanout import TargetSpec
from autosparse.models.specs.fields import Spec, check_fields
from autosparse.models.specs.grain import grain_of
from autosparse.models.specs.run_specs import LEARNED, SCORER_GROWTH, DataSpec, Density, Natural, Seed, TrainSpec
from autosparse.storage import paths
from autosparse.storage.checkpoints import dump_tensors
from autosparse.storage.mask_files import dump_mask
from autosparse.tasks.worker.job import Job, body
from autosparse.tasks.worker.problem import Problem, initial_network, open_problem
from autosparse.tasks.worker.scoring_batches import scoring_batches
from autosparse.tasks.worker.train_network import initial_digest

Cuts = dict[str, dict[str, Any]]  # density -> facts of its mask


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringInputs(Spec):
    """A target and seed, the method that scores it, and where it is cut. `train` is what looking ahead does a part of; `scorer` is the
    folder of the scorer in the store, for learned methods; `step` that of what is made here."""

    target: TargetSpec
    data: DataSpec
    seed: Seed
    method: str
    densities: tuple[Density, ...]
    min_per_layer: Natural
    controls: tuple[str, ...]
    repair: bool
    train: TrainSpec
    scorer: str | None
    step: str

    def __post_init__(self) -> None:
        check_fields(self)
        if (self.scorer is None) == is_learned(self.method):
            raise not_allowed("scorer", self.scorer, f"a folder for {' and '.join(LEARNED)}, none for others such as {self.method!r}")


@body(ScoringInputs)
def score_target(job: Job, inputs: ScoringInputs) -> dict[str, Any]:
    """Score every prunable weight of one target and seed by one method; write the scores and one mask per density and control.

    `cuts` of the report: density -> facts of its mask; `controls`: control -> the same; `drift`: of a learned method, how far the
    target's features are from those the scorer was fitted to (None where its card does not say); `scoring_seconds`: from the initial
    weights to the last mask of the method itself, a lookahead among them, without the images and the wait for a process.
    """
    spec, seed, problem = inputs.target.network, inputs.seed, open_problem(inputs.data, job.cache)
    start = time.monotonic()
    network = initial_network(spec, problem, seed)
    built = time.monotonic() - start
    initial = initial_digest(network)
    start = time.monotonic() - built  # the digest is no part of what a scoring costs
    network.to(job.device)
    look = FirstLook(seeding.generator(seed, "drift"))
    method, card = _method(job, inputs, look)
    batches = scoring_batches(job, problem, seed, training=inputs.train)
    if not looks_ahead(inputs.method):  # the strict track, which a criterion from outside is in too
        batches.look_ahead = None
    scoring = Scoring(job, inputs, network, checked(inputs.method, method), batches, problem.shape)
    scores = scoring.scores(scoring.batches)
    job.store.write(paths.scores_file(inputs.step), dump_tensors(scores))
    cuts = scoring.cuts(scores)
    seconds = time.monotonic() - start
    return {
        "method": inputs.method,
        "seed": seed,
        "target": inputs.target.label,
        "weights": sum(score.numel() for score in scores.values()),
        "cuts": cuts,
        "scoring_seconds": seconds,
        "controls": {control: scoring.control_cuts(control, scores, cuts) for control in inputs.controls},
        "data_digest": problem.digest,
        "initial_digest": initial,
        "drift": scoring.drift(card, look, problem) if card else None,
    }


@dataclass(frozen=True)
class Scoring:
    """A target at initialization and the method that scores it; `shape` is that of one image, or one example."""

    job: Job
    inputs: ScoringInputs
    network: nn.Module
    method: Criterion
    batches: Batches
    shape: Shape

    @property
    def head(self) -> bool:
        """Whether the classifier is prunable."""
        return self.inputs.target.network.prune_head

    @cached_property
    def grained(self) -> Grained | None:
        """How scores become masks where the method has a grain, None where it removes single weights."""
        grain = grain_of(self.inputs.method)
        return Grained(self.network, fitted(self.network, example_of(self.shape)), grain, self.head) if grain else None

    def scores(self, batches: Batches, network: nn.Module | None = None) -> Scores:
        """The method's scores on the CPU, of the target or another network; what it draws is the same whatever the batches are."""
        stream = seeding.generator(self.inputs.seed, "criterion", self.inputs.method)
        scores = self.method.score(network or self.network, batches, stream, head=self.head, density=min(self.inputs.densities))
        return {layer: score.detach().cpu() for layer, score in scores.items()}

    def drift(self, card: dict[str, Any], look: FirstLook, problem: Problem) -> dict[str, Any] | None:
        """What the drift guard says; `look` has watched the scorer at work. `sentence`: the same for a person, None where all is alike."""
        training = features_seen(card)
        if training is None:
            return None
        if look.seen is None:  # a head that ranks by growth alone asks for no features
            look(*inputs(self.network, self.batches, head=self.head))
        found = compare(training, look.found)
        return {**found.to_plain(), "sentence": elsewhere(card, problem, found.sentence)}

    def cuts(self, scores: Scores, name: str | None = None, control: Control | None = None) -> Cuts:
        """Cut the scores at every density; write each mask and say what it is."""
        return {f"{density:g}": self._cut(scores, density, name, control) for density in self.inputs.densities}

    def control_cuts(self, name: str, scores: Scores, cuts: Cuts) -> Cuts:
        """The same for a control; `scores` and `cuts` are the method's own. Spoiled data is the same for all methods of a seed."""
        control = CONTROLS[name]
        if control.init_seed or control.weights:
            return cuts
        if control.batches:
            scores = self.scores(control.batches(self.batches, seeding.generator(self.inputs.seed, "control", name)))
        return self.cuts(control.scores(scores) if control.scores else scores, name, control)

    def _cut(self, scores: Scores, density: float, name: str | None, control: Control | None) -> dict[str, Any]:
        inputs = self.inputs
        mask, repaired = self._repaired(self._allocated(scores, density), scores)
        if control and control.mask:  # a repair afterwards would undo it
            chance = seeding.generator(inputs.seed, "control", name, inputs.method, f"{density:g}")
            mask = self.grained.shuffle(mask, chance) if self.grained else control.mask(mask, chance)
        key = paths.cut_mask(inputs.step, density, name)
        self.job.store.write(key, dump_mask(mask))
        return {"mask": key, **gates.facts(self.network, mask, self.shape, density=density), **repaired}

    def _allocated(self, scores: Scores, density: float) -> Mask:
        allocate, floor = self.method.allocate, self.inputs.min_per_layer
        if self.grained is None:
            return allocate(scores, density, floor=floor)
        mask = self.grained.cut(scores, density, allocate=allocate, again=partial(self.scores, self.batches), floor=floor)
        return {name: keep.cpu() for name, keep in mask.items()}

    def _repaired(self, mask: Mask, scores: Scores) -> tuple[Mask, dict[str, Any]]:
        if not self.inputs.repair or self.grained:  # it knows single weights alone
            return mask, {}
        mask, record = repair(self.network, mask, scores, self.shape, floor=max(1, self.inputs.min_per_layer))
        return mask, {"repair": record._asdict()}


def elsewhere(card: dict[str, Any], problem: Problem, drift: str | None) -> str | None:
    """The sentence of the drift guard, after the data that the scorer was fitted on where these are others."""
    there, here = card.get("data"), problem.data.title
    if there is None or card["metadata"].get("data_digest") == problem.digest:
        return drift
    return f"the scorer was fitted on {there}, this is {here}: {drift or 'by its features this network looks alike'}"


def _method(job: Job, inputs: ScoringInputs, look: FirstLook) -> tuple[Criterion, dict[str, Any] | None]:
    """The method and, of a learned one, its scorer's card."""
    if inputs.scorer is None:
        return find_criterion(family(inputs.method)), None
    scorer, card = load_scorer(job.store, inputs.scorer)
    score = looking_ahead if family(inputs.method) == SCORER_GROWTH else as_criterion
    return Criterion(score=score(scorer.to(job.device), watch=look)), card
