"""Rounds survived over what a weight was at initialization, counted from the feature data set in bounded memory."""

from dataclasses import dataclass

import numpy as np

from autosparse.storage.feature_table import FeatureDataset

BINS = 36
WEIGHT_EDGES = np.linspace(0.0, 3.0, BINS + 1)  # |w| / std of its layer
GROWTH_EDGES = np.linspace(-3.0, 3.0, BINS + 1)  # g * sign(w) / rms gradient of its layer
FEWEST = 5  # weights in a cell, else its mean is left blank


@dataclass(frozen=True, kw_only=True)
class SurvivalMap:
    """`total` (rounds survived) and `count` (weights), both (BINS, BINS), rows along |w|, columns along g * sign(w)."""

    total: np.ndarray
    count: np.ndarray
    rounds: int
    rows: int

    @property
    def mean(self) -> np.ndarray:
        """Mean rounds survived of each cell, NaN where fewer than FEWEST weights are."""
        return np.where(self.count >= FEWEST, self.total / np.maximum(self.count, 1), np.nan)


def survival_map(dataset: FeatureDataset) -> SurvivalMap:
    """One pass over all parts, a batch at a time; what lies outside the edges is counted in the outermost cells.

    A layer whose weights or gradients are all zero counts as zero. Raises DataError for a damaged file.
    """
    total, count, rows = np.zeros(BINS * BINS), np.zeros(BINS * BINS, np.int64), 0
    for number, part in enumerate(dataset.parts):
        facts = part.metadata["layers"]
        stds, sizes = (np.array([layer[key] for layer in facts], np.float64) for key in ("weight_std", "gradient_rms"))
        for batch in dataset.batches(number, ("layer", "weight", "gradient", "rounds_survived")):
            layer, weight = batch["layer"], batch["weight"].astype(np.float64)
            growth = batch["gradient"] * np.sign(weight)
            cell = _bin(_over(np.abs(weight), stds[layer]), WEIGHT_EDGES) * BINS + _bin(_over(growth, sizes[layer]), GROWTH_EDGES)
            total += np.bincount(cell, weights=batch["rounds_survived"], minlength=BINS * BINS)
            count += np.bincount(cell, minlength=BINS * BINS)
            rows += len(layer)
    shape = (BINS, BINS)
    return SurvivalMap(total=total.reshape(shape), count=count.reshape(shape), rounds=int(dataset.metadata["rounds"]), rows=rows)


def _over(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.divide(values, scale, out=np.zeros_like(values), where=scale > 0)


def _bin(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    width = edges[1] - edges[0]
    return np.clip(((values - edges[0]) / width).astype(np.int64), 0, len(edges) - 2)
