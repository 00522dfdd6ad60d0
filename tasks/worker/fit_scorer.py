"""Fitting the scorer inside a Ray Train job, from rows that stream out of the feature data set.

Every rank reads every block and takes its share of each batch, so that all ranks do equally many steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray.train
import torch
import torch.distributed as dist
from torch import Tensor, nn

from autosparse.library.scorer_files import save_scorer
from autosparse.models.criteria.paths import Paths
from autosparse.models.errors import DataError
from autosparse.models.features import FEATURES_VERSION
from autosparse.models.scorers.criterion import score_weights
from autosparse.models.scorers.fit import fit_scorer
from autosparse.models.scorers.metrics import evaluate_scorer
from autosparse.models.scorers.registry import build_scorer
from autosparse.models.specs.fields import Spec
from autosparse.models.specs.run_specs import ScorerSpec
from autosparse.models.specs.scorer_heads import LearnedHead, PathsHead
from autosparse.storage.feature_table import open_dataset
from autosparse.tasks.worker.job import Job, body
from autosparse.tasks.worker.scorer_split import Split
from autosparse.tasks.worker.watchdog import watched


@dataclass(frozen=True, kw_only=True, slots=True)
class FitInputs(Spec):
    """The scorer to fit, the address of the feature data set and the name of the data behind it, and the folder in the store where the
    files of the scorer go."""

    scorer: ScorerSpec
    dataset: str
    data: str
    folder: str


@body(FitInputs)
def fit(job: Job, inputs: FitInputs) -> dict[str, Any]:
    """Fit, evaluate on what was held out beside the table and plain formulas, write safetensors and card."""
    spec, dataset = inputs.scorer, open_dataset(inputs.dataset)
    if (version := dataset.metadata["features_version"]) != FEATURES_VERSION:
        raise DataError(f"features_version: {version} of {dataset.uri} is not allowed; allowed: {FEATURES_VERSION}")
    split = Split(dataset, spec)
    scorer = build_scorer(spec.kind, hidden=spec.hidden, seed=spec.seed).to(job.device)
    losses = _fit(job, spec, scorer, split)
    if job.rank.index:
        return {}
    head = spec.head
    if isinstance(head, LearnedHead):
        scorer.allocation = split.allocation(head)  # type: ignore[assignment]  # for the evaluation: held-out layers unseen
    elif isinstance(head, PathsHead):
        scorer.allocation = Paths.of(head)  # type: ignore[assignment]
    table = build_scorer("table", hidden=(), seed=spec.seed).to(job.device)
    fit_scorer(table, lambda epoch: split.batches(spec, job, epoch), epochs=1, lr=spec.lr)
    metrics, evaluated = {}, {}
    for group in ("seeds", "layers"):
        if split.has(group):
            metrics[group], evaluated[group] = _compare(scorer, table, split, group, job.device)
    card = {
        "dataset": {"uri": inputs.dataset, "digest": dataset.digest, "rows": dataset.rows},
        "metadata": dataset.metadata,
        "data": inputs.data,
        "label": spec.label,
        "trained_on": {**split.description, "layers": split.trained_layers},
        "evaluated_on": evaluated,
        "features_seen": split.features_seen(spec),
        "metrics": metrics,
        "losses": losses,
    }
    if isinstance(head, LearnedHead):  # a handful of layers is all there is to learn from: the head that is used has seen them all
        scorer.allocation = split.allocation(head, every_layer=True)  # type: ignore[assignment]
    save_scorer(job.store, inputs.folder, scorer.cpu(), card)
    return {"metrics": metrics, "losses": losses, "trained_on": split.description, "kind": spec.kind, "parameters": _size(scorer)}


def _fit(job: Job, spec: ScorerSpec, scorer: nn.Module, split: Split) -> list[float]:
    def on_epoch(epoch: int, loss: float) -> None:
        job.tell("epoch", epoch=epoch, epochs=spec.epochs, loss=loss, lr=spec.lr, seconds=0.0, metrics=[])
        ray.train.report({"epoch": epoch, "loss": loss})

    forward, total = scorer, lambda values: values
    if job.rank.count > 1:
        if any(parameter.requires_grad for parameter in scorer.parameters()):
            forward = nn.parallel.DistributedDataParallel(scorer)
        total = _all_sum
    with watched(job) as alive:

        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in split.batches(spec, job, epoch):
                alive()
                yield batch

        return fit_scorer(scorer, batches, epochs=spec.epochs, lr=spec.lr, forward=forward, all_sum=total, on_epoch=on_epoch)


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


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
