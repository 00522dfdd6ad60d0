"""What of a feature data set the scorer is fitted to, and what is held out.

Whole seeds and whole layers are held out, never random rows: neighbours of a training row say nothing about a new network.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autosparse.models import seeding
from autosparse.models.errors import DataError
from autosparse.models.features import LayerFacts, feature_matrix_rows
from autosparse.models.scorers import drift
from autosparse.models.scorers.allocation_head import Allocation, fit_allocation
from autosparse.models.scorers.fit import Rows, minibatches
from autosparse.models.scorers.labels import GROWTH_LEVELS, label_target
from autosparse.models.specs.run_specs import ScorerSpec
from autosparse.models.specs.scorer_heads import LearnedHead
from autosparse.storage.feature_table import FeatureDataset
from autosparse.tasks.worker.job import Job

BLOCK_ROWS = 2_000_000  # rows shuffled together, whatever the data set's size
EVALUATION_ROWS = 10_000_000  # of each held-out group; more are thinned out evenly
COLUMNS = ("layer", "weight", "gradient")  # and that of the label
LABELS = {"survival": "rounds_survived", "growth": "growth"}  # scorer.label -> column

Columns = dict[str, np.ndarray]


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

    def allocation(self, head: LearnedHead, *, every_layer: bool = False) -> Allocation:
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
        return fit_allocation(examples, final_density=self.dataset.metadata["final_density"], sharpness=head.sharpness, tilt=head.tilt)

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
