"""The drift guard: how far the features of a target are from those that a scorer was fitted to. It warns, it never refuses.

Compared are distributions over the weights of a network, column by column, by the Kolmogorov-Smirnov distance: the largest
difference of two cumulative distributions, 0.0 = the same, 1.0 = nothing in common. It needs no unit and no bins, does not change
when a column is stretched (so log_weight and weight_scaled can be held against one threshold), and sees a distribution that has
shrunk, which a share of values beyond the training range does not.

A column that is the same in a whole layer has a few values only. There the first question is another one, whether the target has
values that the scorer never saw: such a value is named, and is no shift of a distribution.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from autosparse.models.errors import DataError
from autosparse.models.features import FEATURE_NAMES, LAYER_COLUMNS, LayerFacts, feature_matrix

SAMPLE_ROWS = 200_000  # weights of a network that are looked at, about
POINTS = 257  # quantiles that stand for a column: a distance is right within 2 / POINTS
MOST_VALUES = 512  # of a column that is the same in a whole layer; with more it counts as continuous

# Thresholds of the distance, from networks of one definition under 20 seeds each (resnet8, resnet20, lenet300-100, thousands to
# tens of thousands of weights, 256 images): weights stay below .023, gradients, which hang on the images drawn, below .088.
SHIFT = 0.05
SHIFT_GRADIENT = 0.12
NOISE = 1.95  # times sqrt(1/n + 1/m): what two samples of one distribution stay below in 999 of 1,000 cases (Smirnov 1948)
GRADIENT_COLUMNS = ("gradient", "gradient_scaled", "log_gradient", "growth_gradient")

NAMED = 3  # new values that are named
SAME = 1e-5  # relative: the card is JSON, features are float32

Kind = Literal["new values", "shifted", "alike"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column: its values, rising, and their shares; `shares` None = quantiles of a continuous column, all equally likely."""

    values: tuple[float, ...]
    shares: tuple[float, ...] | None = None

    def up_to(self, points: np.ndarray) -> np.ndarray:
        """The share of values that are at most `points`, each."""
        values = np.array(self.values)
        shares = np.full(len(values), 1 / len(values)) if self.shares is None else np.array(self.shares)
        return np.concatenate(([0.0], shares.cumsum()))[np.searchsorted(values, points + SAME * np.abs(points), side="right")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """Every feature column over the weights of a network, or of several of one definition. `rows` = how many weights were looked at."""

    rows: int
    columns: dict[str, Column]

    def to_plain(self) -> dict[str, Any]:
        """JSON-like data for a scorer's card."""
        columns = {
            name: {"values": list(column.values), "shares": column.shares and list(column.shares)} for name, column in self.columns.items()
        }
        return {"rows": self.rows, "columns": columns}

    @classmethod
    def from_plain(cls, data: Any) -> "Seen":
        """What a card says. Raises DataError where that is not what `to_plain` writes."""
        try:
            columns = {
                name: Column(values=tuple(map(float, data["columns"][name]["values"])), shares=_shares(data["columns"][name]["shares"]))
                for name in FEATURE_NAMES
            }
            if data["rows"] < 1 or not all(column.values for column in columns.values()):
                raise ValueError("a column without a value")
            return cls(rows=int(data["rows"]), columns=columns)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"scorer.features_seen: {error!r} in its card; allowed: rows and every feature column") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """One column of a target beside training. `new` is the share of weights at values that training never had, `values` some of them."""

    column: str
    kind: Kind
    distance: float
    threshold: float
    new: float = 0.0
    values: tuple[float, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """JSON-like data for a report."""
        return {name: getattr(self, name) for name in ("column", "kind", "distance", "threshold", "new")} | {"values": list(self.values)}

    def __str__(self) -> str:
        if self.kind == "new values":
            return f"{self.column} (new values {', '.join(f'{value:.3g}' for value in self.values)} in {100 * self.new:.0f} % of weights)"
        return f"{self.column} ({self.kind}, distance {self.distance:.2f} of at most {self.threshold:.2f})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """A target beside `source`, of the networks that the scorer learned from the one most like it. `columns`: the worst first."""

    source: str
    columns: tuple[Compared, ...]

    @property
    def warned(self) -> tuple[Compared, ...]:
        """The columns that are not alike."""
        return tuple(column for column in self.columns if column.kind != "alike")

    @property
    def warning(self) -> str | None:
        """One line that names what is different, None where nothing is."""
        if not self.warned:
            return None
        return f"features unlike those of {self.source}, which the scorer learned from: {', '.join(map(str, self.warned))}"

    @property
    def sentence(self) -> str | None:
        """The warning as a person reads it, without numbers; None where nothing is different."""
        if not self.warned:
            return None
        somewhat = "somewhat " if len(self.warned) <= len(self.columns) // 3 else ""
        return (
            f"this network looks {somewhat}different from {self.source}, which the scorer learned from ({len(self.warned)} of "
            f"{len(self.columns)} features): compare it with smallest_paths or synflow before you rely on it"
        )

    def to_plain(self) -> dict[str, Any]:
        """JSON-like data for a report."""
        return {"source": self.source, "warning": self.warning, "columns": [column.to_plain() for column in self.columns]}


class FirstLook:
    """Keeps the features of the first network that it is shown, of about SAMPLE_ROWS weights drawn by `generator` (on the CPU)."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.seen: Seen | None = None

    def __call__(self, params: Mapping[str, Tensor], gradients: Mapping[str, Tensor], facts: Sequence[LayerFacts]) -> None:
        """Look at a network: its weights, their gradients and what is known of its layers."""
        if self.seen is not None:
            return
        share, rows = SAMPLE_ROWS / max(sum(layer.numel for layer in facts), 1), []
        for layer in facts:
            weight, gradient = params[layer.name].detach().reshape(-1), gradients[layer.name].reshape(-1)
            chosen = picked(len(weight), share, self.generator).to(weight.device)
            rows.append(feature_matrix(weight[chosen], gradient[chosen], layer).cpu())
        self.seen = sketch(torch.cat(rows), facts)

    @property
    def found(self) -> Seen:
        """What was seen. Raises RuntimeError where no network was shown."""
        if self.seen is None:
            raise RuntimeError("the drift guard was shown no network")
        return self.seen


def picked(count: int, share: float, generator: torch.Generator) -> Tensor:
    """Indices of about `share` of `count` rows, rising: each row is in by its own draw; all of them from 1.0 on."""
    if share >= 1:
        return torch.arange(count)
    return (torch.rand(count, generator=generator) < share).nonzero().squeeze(1)


def sketch(features: Tensor, layers: Sequence[LayerFacts]) -> Seen:
    """What is kept of sampled features (n, F), n >= 1, of networks with these layers; the columns of whole layers are exact."""
    size = np.array([layer.numel for layer in layers], dtype=float)
    nothing = torch.zeros(1)
    whole = torch.cat([feature_matrix(nothing, nothing, layer) for layer in layers]).double().numpy()
    rows = np.sort(features.double().numpy(), axis=0)
    columns = {}
    for index, name in enumerate(FEATURE_NAMES):
        column = _of_layers(whole[:, index], size / size.sum()) if name in LAYER_COLUMNS else None
        columns[name] = column or _quantiles(rows[:, index])
    return Seen(rows=len(rows), columns=columns)


def compare(training: Mapping[str, Seen], target: Seen) -> Drift:
    """A target beside each of the networks that a scorer learned from, by name; told is the one with the fewest columns unlike."""
    found = [
        Drift(source=name, columns=tuple(sorted((_compared(column, seen, target) for column in FEATURE_NAMES), key=_badness)))
        for name, seen in training.items()
    ]
    return min(found, key=lambda drift: (len(drift.warned), sum(column.distance for column in drift.columns)))


def distance(first: Column, second: Column) -> float:
    """Kolmogorov-Smirnov: the largest difference between the two shares of values up to a point."""
    points = np.array(first.values + second.values)
    return float(np.abs(first.up_to(points) - second.up_to(points)).max())


def _compared(name: str, training: Seen, target: Seen) -> Compared:
    known, found = training.columns[name], target.columns[name]
    threshold = SHIFT_GRADIENT if name in GRADIENT_COLUMNS else SHIFT
    if found.shares is None or known.shares is None:
        threshold = max(threshold, NOISE * math.sqrt(1 / training.rows + 1 / target.rows))
    apart = distance(known, found)
    values, share = _new_values(known, found)
    kind: Kind = "new values" if values else "shifted" if apart > threshold else "alike"
    return Compared(column=name, kind=kind, distance=apart, threshold=threshold, new=share, values=values[:NAMED])


def _new_values(known: Column, found: Column) -> tuple[tuple[float, ...], float]:
    """Values of `found` that `known` does not have, the most frequent first, and their share; none of a continuous column."""
    if known.shares is None:
        return (), 0.0
    there = np.array(known.values)
    shares = found.shares or [1 / len(found.values)] * len(found.values)
    new = [
        (share, value)
        for value, share in zip(found.values, shares, strict=True)
        if not np.isclose(there, value, rtol=SAME, atol=SAME).any()
    ]
    return tuple(value for _, value in sorted(new, key=lambda pair: -pair[0])), math.fsum(share for share, _ in new)


def _badness(column: Compared) -> tuple[int, float]:
    return ("new values", "shifted", "alike").index(column.kind), -column.distance / column.threshold


def _of_layers(values: np.ndarray, shares: np.ndarray) -> Column | None:
    found, place = np.unique(values, return_inverse=True)
    if len(found) > MOST_VALUES:
        return None
    return Column(values=_plain(found), shares=_plain(np.bincount(place, weights=shares)))


def _quantiles(ordered: np.ndarray) -> Column:
    if ordered[0] == ordered[-1]:
        return Column(values=_plain(ordered[:1]), shares=(1.0,))
    places = ((np.arange(POINTS) + 0.5) / POINTS * len(ordered)).astype(int)
    return Column(values=_plain(ordered[places]))


def _shares(shares: Any) -> tuple[float, ...] | None:
    return None if shares is None else tuple(map(float, shares))


def _plain(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{value:.7g}") for value in values)
