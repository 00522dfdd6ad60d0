"""Fitting the scorer inside a Ray Train job, from rows that stream out of the feature data set.

Whole seeds and whole layers are held out, never random rows: neighbours of a training row say nothing about a new network.
Every rank reads every block and takes its share of each batch, so that all ranks do equally many steps.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import ray.train
import torch
import torch.distributed as dist
from torch import Tensor, nn

from models import drift, seeding
from models.allocation_head import Allocation, fit_allocation
from models.errors import DataError
from models.features import FEATURES_VERSION, LayerFacts, feature_matrix_rows
from models.labels import GROWTH_LEVELS, label_target
from models.metrics import evaluate_scorer
from models.path_allocation import Paths
from models.scorer_criterion import score_weights
from models.scorer_fit import Rows, fit_scorer, minibatches
from models.scorers.registry import build_scorer
from models.specs import ScorerSpec
from storage.feature_table import FeatureDataset, open_dataset
from tasks.worker.job import Job, body
from tasks.worker.scorer_files import save_scorer

BLOCK_ROWS = 2_000_000  # rows shuffled together, whatever the data set's size
EVALUATION_ROWS = 10_000_000  # of each held-out group; more are thinned out evenly
COLUMNS = ("layer", "weight", "gradient")  # and that of the label
LABELS = {"survival": "rounds_survived", "growth": "growth"}  # scorer.label -> column

Columns = dict[str, np.ndarray]


@body
def fit(job: Job) -> dict[str, Any]:
    """Fit, evaluate on what was held out beside the table and plain formulas, write safetensors and card."""
    spec = job.spec("scorer", ScorerSpec)
    dataset = open_dataset(job.config["dataset"])
    if (version := dataset.metadata["features_version"]) != FEATURES_VERSION:
        raise DataError(f"features_version: {version} of {dataset.uri} is not allowed; allowed: {FEATURES_VERSION}")
    split = Split(dataset, spec)
    scorer = build_scorer(spec.kind, hidden=spec.hidden, seed=spec.seed).to(job.device)
    losses = _fit(job, spec, scorer, split)
    if job.rank.index:
        return {}
    if spec.allocation == "learned":
        scorer.allocation = split.allocation(spec)  # type: ignore[assignment]  # for the evaluation: held-out layers unseen
    elif spec.allocation == "paths":
        scorer.allocation = Paths(contrast=spec.contrast, contrast_ahead=spec.contrast_ahead, blend=spec.blend)  # type: ignore[assignment]
    table = build_scorer("table", hidden=(), seed=spec.seed).to(job.device)
    fit_scorer(table, lambda epoch: split.batches(spec, job, epoch), epochs=1, lr=spec.lr)
    metrics, evaluated = {}, {}
    for group in ("seeds", "layers"):
        if split.has(group):
            metrics[group], evaluated[group] = _compare(scorer, table, split, group, job.device)
    card = {
        "dataset": {"uri": job.config["dataset"], "digest": dataset.digest, "rows": dataset.rows},
        "metadata": dataset.metadata,
        "trained_on": {**split.description, "layers": split.trained_layers},
        "evaluated_on": evaluated,
        "features_seen": split.features_seen(spec),
        "metrics": metrics,
        "losses": losses,
    }
    if spec.allocation == "learned":  # a handful of layers is all there is to learn from: the head that is used has seen them all
        scorer.allocation = split.allocation(spec, every_layer=True)  # type: ignore[assignment]
    save_scorer(job.store, job.config["folder"], scorer.cpu(), card)
    return {"metrics": metrics, "losses": losses, "trained_on": split.description, "kind": spec.kind, "parameters": _size(scorer)}


class Split:
    """Which parts and layers of a data set are for training, and which are held out."""

    def __init__(self, dataset: FeatureDataset, spec: ScorerSpec) -> None:
        self.dataset = dataset
        self.rounds = int(dataset.metadata["rounds"])
        self.label = LABELS[spec.label]
        self.most = self.rounds if spec.label == "survival" else GROWTH_LEVELS - 1
        self.facts = [[LayerFacts.from_plain(layer) for layer in part.metadata["layers"]] for part in dataset.parts]
        self.held_parts = {n for n, part in enumerate(dataset.parts) if part.metadata["seed"] in spec.holdout_seeds}
        self.held_layers = [_held_layers(facts, spec) for facts in self.facts]
        self._trained: set[tuple[int, int]] = set()  # (part, layer) of every row that was handed out for training
        if not self.held_parts and not any(self.held_layers):
            raise DataError("scorer: nothing is held out; allowed: scorer.holdout_seeds or a larger scorer.holdout_layers")

    @property
    def description(self) -> dict[str, Any]:
        """Seeds and layers on each side, for the card: whoever uses the scorer can check what it has seen."""
        parts = self.dataset.parts
        return {
            "seeds": sorted({part.metadata["seed"] for n, part in enumerate(parts) if n not in self.held_parts}),
            "sources": sorted({part.metadata["source"] for part in parts}),
            "held_out_seeds": sorted({parts[n].metadata["seed"] for n in self.held_parts}),
            "held_out_layers": {
                part.metadata["source"]: [self.facts[n][layer].name for layer in sorted(self.held_layers[n])]
                for n, part in enumerate(parts)
            },
        }

    @property
    def trained_layers(self) -> list[str]:
        """What training rows have really come from, `SOURCE-SEED/LAYER`, as `held_out` names what the metrics come from."""
        return sorted(self._name(number, layer) for number, layer in self._trained)

    def has(self, group: str) -> bool:
        """Whether anything is held out by `seeds` or by `layers`."""
        return bool(self.held_parts) if group == "seeds" else any(self.held_layers)

    def batches(self, spec: ScorerSpec, job: Job, epoch: int) -> Iterator[Rows]:
        """This rank's share of the training rows of an epoch, in random order within blocks of random row groups."""
        stream = seeding.generator(spec.seed, "scorer-order", epoch)
        count = job.rank.count
        for features, target in self._blocks(stream):
            features, target = features[: len(target) // count * count], target[: len(target) // count * count]
            mine = slice(job.rank.index, None, count)
            for rows, labels in minibatches(features[mine], target[mine], max(spec.batch_size // count, 2), stream):
                yield rows.to(job.device), labels.to(job.device)

    def features_seen(self, spec: ScorerSpec) -> dict[str, Any]:
        """For the drift guard: source network -> its features over the training seeds.

        Held-out layers are among them. What the scorer makes of those is in its metrics, and a target of the source's own definition
        must not look new because of them.
        """
        stream = seeding.generator(spec.seed, "features-seen")
        sources: dict[str, list[int]] = {}
        for number, part in enumerate(self.dataset.parts):
            if number not in self.held_parts:
                sources.setdefault(part.metadata["source"], []).append(number)
        return {source: self._features_seen(numbers, stream).to_plain() for source, numbers in sources.items()}

    def _features_seen(self, numbers: list[int], stream: torch.Generator) -> drift.Seen:
        share, rows = drift.SAMPLE_ROWS / sum(self.dataset.parts[number].rows for number in numbers), []
        for number in numbers:
            for columns in self.dataset.batches(number, columns=COLUMNS):
                chosen = drift.picked(len(columns["layer"]), share, stream).numpy()
                rows.append(_features({key: values[chosen] for key, values in columns.items()}, self.facts[number]))
        return drift.sketch(torch.cat(rows), [layer for number in numbers for layer in self.facts[number]])

    def allocation(self, spec: ScorerSpec, *, every_layer: bool = False) -> Allocation:
        """The head for layer densities, fitted to every cut of the training seeds; held-out layers are left out unless asked for."""
        examples = []
        for number, part in enumerate(self.dataset.parts):
            if number in self.held_parts:
                continue
            counts = np.zeros((len(self.facts[number]), self.rounds + 1))
            for columns in self.dataset.batches(number, columns=("layer", "rounds_survived")):
                np.add.at(counts, (columns["layer"], columns["rounds_survived"]), 1)
            kept = counts[:, ::-1].cumsum(1)[:, ::-1]  # after so many cuts
            for cut in range(1, self.rounds + 1):
                whole = kept[:, cut].sum() / part.rows
                chosen = [layer for layer in range(len(kept)) if every_layer or layer not in self.held_layers[number]]
                examples += [(self.facts[number][layer], whole, kept[layer, cut] / kept[layer, 0]) for layer in chosen]
        return fit_allocation(examples, final_density=self.dataset.metadata["final_density"], sharpness=spec.sharpness, tilt=spec.tilt)

    def held_out(self, group: str) -> Iterator[tuple[str, LayerFacts, Columns]]:
        """Held-out layers whole: every layer of held-out seeds, or the held-out layers of the other seeds."""
        for number, part in enumerate(self.dataset.parts):
            if (number in self.held_parts) != (group == "seeds"):
                continue
            wanted = range(len(self.facts[number])) if group == "seeds" else sorted(self.held_layers[number])
            step = max(1, part.rows // EVALUATION_ROWS)
            columns = _thinned(self.dataset, number, step, (*COLUMNS, self.label))
            for layer in wanted:
                rows = columns["layer"] == layer
                yield self._name(number, layer), self.facts[number][layer], {key: values[rows] for key, values in columns.items()}

    def _name(self, number: int, layer: int) -> str:
        about = self.dataset.parts[number].metadata
        return f"{about['source']}-{about['seed']}/{self.facts[number][layer].name}"

    def _blocks(self, stream: torch.Generator) -> Iterator[Rows]:
        units = [(n, group) for n, part in enumerate(self.dataset.parts) if n not in self.held_parts for group in range(part.row_groups)]
        pool: list[Rows] = []
        for index in torch.randperm(len(units), generator=stream).tolist():
            number, group = units[index]
            pool.extend(self._training_rows(number, self.dataset.batches(number, columns=(*COLUMNS, self.label), row_groups=[group])))
            if sum(len(target) for _, target in pool) >= BLOCK_ROWS:
                yield _joined(pool)
                pool = []
        if pool:
            yield _joined(pool)

    def _training_rows(self, number: int, batches: Iterable[Columns]) -> Iterator[Rows]:
        held = np.isin(np.arange(len(self.facts[number])), list(self.held_layers[number]))
        for columns in batches:
            rows = ~held[columns["layer"]]
            if rows.any():
                self._trained.update((number, int(layer)) for layer in np.unique(columns["layer"][rows]))
                yield _rows({key: values[rows] for key, values in columns.items()}, self.facts[number], self.label, self.most)


def _fit(job: Job, spec: ScorerSpec, scorer: nn.Module, split: Split) -> list[float]:
    def on_epoch(epoch: int, loss: float) -> None:
        job.tell("epoch", epoch=epoch, epochs=spec.epochs, loss=loss, accuracy=0.0, lr=spec.lr, seconds=0.0)
        ray.train.report({"epoch": epoch, "loss": loss})

    forward, total = scorer, lambda values: values
    if job.rank.count > 1:
        if any(parameter.requires_grad for parameter in scorer.parameters()):
            forward = nn.parallel.DistributedDataParallel(scorer)
        total = _all_sum
    return fit_scorer(
        scorer,
        lambda epoch: split.batches(spec, job, epoch),
        epochs=spec.epochs,
        lr=spec.lr,
        forward=forward,
        all_sum=total,
        on_epoch=on_epoch,
    )


def _all_sum(values: Tensor) -> Tensor:
    dist.all_reduce(values)
    return values


def _compare(scorer: nn.Module, table: nn.Module, split: Split, group: str, device: torch.device) -> tuple[dict[str, Any], list[str]]:
    """The held-out report of the scorer, and of the table, abs(w), abs(g) and abs(w * g) beside it; and the names of the layers."""
    scores: dict[str, dict[str, Tensor]] = {"scorer": {}, "table": {}, "abs_weight": {}, "abs_gradient": {}, "abs_weight_gradient": {}}
    labels = {}
    for name, facts, columns in split.held_out(group):
        weight, gradient = torch.from_numpy(columns["weight"]), torch.from_numpy(columns["gradient"])
        labels[name] = torch.from_numpy(columns[split.label])
        for key, module in (("scorer", scorer), ("table", table)):
            raw = score_weights(module, weight.to(device), gradient.to(device), facts).cpu()
            allocation = getattr(module, "allocation", None)
            scores[key][name] = allocation.comparable(raw, facts) if allocation else raw
        scores["abs_weight"][name], scores["abs_gradient"][name] = weight.abs(), gradient.abs()
        scores["abs_weight_gradient"][name] = (weight * gradient).abs()
    reports = {key: evaluate_scorer(values, labels, split.most) for key, values in scores.items()}
    return {**reports.pop("scorer"), "baselines": reports}, sorted(labels)


def _held_layers(facts: list[LayerFacts], spec: ScorerSpec) -> set[int]:
    """The same layers for every seed of a network: a share of its layers, at least one, drawn by name."""
    count = round(spec.holdout_layers * len(facts))
    if not spec.holdout_layers or len(facts) < 2:
        return set()
    ranked = sorted(range(len(facts)), key=lambda index: seeding.derive(spec.seed, "holdout", facts[index].name))
    return set(ranked[: min(max(count, 1), len(facts) - 1)])


def _thinned(dataset: FeatureDataset, number: int, step: int, names: tuple[str, ...]) -> Columns:
    taken: list[Columns] = []
    for columns in dataset.batches(number, columns=names):
        taken.append({key: values[::step].copy() for key, values in columns.items()})
    return {key: np.concatenate([columns[key] for columns in taken]) for key in names}


def _rows(columns: Columns, facts: list[LayerFacts], label: str, most: int) -> Rows:
    return _features(columns, facts), label_target(torch.tensor(columns[label]), most)


def _features(columns: Columns, facts: list[LayerFacts]) -> Tensor:
    layers = torch.from_numpy(columns["layer"].astype(np.int64))
    return feature_matrix_rows(layers, torch.tensor(columns["weight"]), torch.tensor(columns["gradient"]), facts)


def _joined(pool: list[Rows]) -> Rows:
    return torch.cat([features for features, _ in pool]), torch.cat([target for _, target in pool])


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
