"""A network as a table, one row per prunable weight, and what a scorer makes of such a table: `prune` where the network cannot go.

A row has the weight's layer, that layer's shape, the weight and its gradient at initialization: all that features are made of. Rows of
a layer stand in the order of its flattened weight, layers in the order in which the network uses them. A scorer that cuts by paths
has to know the network as well, by name.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autosparse.library.pruning import prune
from autosparse.library.scorer import Scorer
from autosparse.models import seeding
from autosparse.models.criteria.paths import Paths
from autosparse.models.errors import DataError, SpecError, not_allowed, unknown_name
from autosparse.models.features import layer_facts
from autosparse.models.gradients import ScoringBatches
from autosparse.models.masks.allocation import global_topk
from autosparse.models.masks.mask import Scores
from autosparse.models.masks.prunable import CHOICE, Choice
from autosparse.models.networks.build import build_network
from autosparse.models.networks.registry import NETWORKS, ZOOS
from autosparse.models.scorers.allocation_head import Allocation
from autosparse.models.scorers.criterion import inputs, score_weights
from autosparse.models.specs.fields import from_plain
from autosparse.models.specs.run_specs import NetworkSpec

COLUMNS = ("layer", "shape", "weight", "gradient")

Table = dict[str, list[Any]]


def weight_table(model: nn.Module, batches: Iterable[Any], **options: Any) -> Table:
    """The table of a network at initialization: `layer`, `shape` as `16x3x3x3`, `weight` and `gradient`, a list each.

    Batches and options are those of `prune` (`head`, `ignore`, `loss` and so on), which raises the same errors.
    """
    table: Table = {name: [] for name in COLUMNS}

    def look(network: nn.Module, given: Any, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
        weights, gradients, _ = inputs(network, given, head=head)
        for name, weight in weights.items():
            table["layer"] += [name] * weight.numel()
            table["shape"] += ["x".join(map(str, weight.shape))] * weight.numel()
            table["weight"] += weight.detach().reshape(-1).tolist()
            table["gradient"] += gradients[name].reshape(-1).tolist()
        return {name: weight.detach().abs() for name, weight in weights.items()}

    prune(model, batches, density=1.0, method=look, warn=False, **options)
    return table


def score_table(
    scorer: Scorer, table: Mapping[str, Sequence[Any]], *, density: float, network: str = "", seed: int = 0, min_per_layer: int = 0
) -> Table:
    """`score` (higher = keep) and `keep` (1 or 0) of each row: the scores and the mask of `prune(method=scorer, density=density)`.

    `network` is JSON: the name of a registered network or one of a zoo, its `image_shape` (channels, height, width), `num_classes` and
    other fields of a network's spec; for scorers that cut by paths. `seed` is that of `prune`.
    Raises SpecError for what cannot be asked, DataError for a table that is none.
    """
    if not 0 < density <= 1:
        raise not_allowed("density", density, "> 0 and <= 1")
    places = _places(table)
    weights, gradients = (_tensors(table, column, places) for column in ("weight", "gradient"))
    with torch.no_grad():
        scores = _scores(scorer, weights, gradients, network, density, seed)
        mask = global_topk(scores, density, floor=min_per_layer)
    found = {"score": np.empty(len(table["layer"])), "keep": np.empty(len(table["layer"]), dtype=np.int64)}
    for name, (rows, _) in places.items():
        found["score"][rows], found["keep"][rows] = scores[name].reshape(-1), mask[name].reshape(-1)
    return {name: column.tolist() for name, column in found.items()}


def _scores(scorer: Scorer, weights: Scores, gradients: Scores, network: str, density: float, seed: int) -> Scores:
    """As the scorer's criterion has them (models/scorers/criterion.py), from a ranking that is known already."""
    facts = layer_facts(weights, gradients)
    raw = {layer.name: score_weights(scorer.module, weights[layer.name], gradients[layer.name], layer) for layer in facts}
    head, chance = getattr(scorer.module, "allocation", None), seeding.generator(seed, "criterion", scorer.name)
    if isinstance(head, Allocation):
        return {layer.name: head.comparable(raw[layer.name], layer, chance) for layer in facts}
    if isinstance(head, Paths):
        built, example = _network(network, weights, seed)
        by_paths = head.criterion(lambda *_, **__: raw)
        return by_paths(built, ScoringBatches([(example, None)]), chance, density=density)
    return raw


def _places(table: Mapping[str, Sequence[Any]]) -> dict[str, tuple[np.ndarray, tuple[int, ...]]]:
    """Layer -> its rows and its shape."""
    for column in COLUMNS:
        if column not in table:
            raise unknown_name("table", f"{', '.join(table)} without {column}", COLUMNS)
    layers, shapes = np.array(table["layer"], dtype=object), table["shape"]
    found = {}
    for name in dict.fromkeys(table["layer"]):
        rows = np.flatnonzero(layers == name)
        said = {str(shapes[row]) for row in rows.tolist()}
        text = said.pop()
        shape = tuple(int(part) for part in text.split("x")) if all(part.isdecimal() for part in text.split("x")) else ()
        if said or len(shape) < 2 or math.prod(shape) != len(rows):
            allowed = f"one shape of {len(rows):,} weights, as 16x3x3x3, for the {len(rows):,} rows of the layer"
            raise DataError(f"shape of {name}: {text!r} is not allowed; allowed: {allowed}")
        found[str(name)] = (rows, shape)
    if not found:
        raise DataError("table: 0 rows are not allowed; allowed: one row per prunable weight")
    return found


def _tensors(table: Mapping[str, Sequence[Any]], column: str, places: Mapping[str, tuple[np.ndarray, tuple[int, ...]]]) -> Scores:
    try:
        values = np.asarray(table[column], dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{column}: {error} is not allowed; allowed: numbers") from None
    return {name: torch.from_numpy(values[rows].reshape(shape)) for name, (rows, shape) in places.items()}


def _network(described: str, weights: Scores, seed: int) -> tuple[nn.Module, Tensor]:
    """The network of that name with these weights, of which all in the table and no others are prunable; and one input."""
    try:
        fields = json.loads(described)
        image, classes = tuple(map(int, fields.pop("image_shape"))), int(fields.pop("num_classes"))
        name = str(fields["name"])
    except (ValueError, KeyError, TypeError, AttributeError):
        example = json.dumps({"name": "resnet8", "image_shape": [3, 32, 32], "num_classes": 10})
        raise not_allowed("network", described, f"JSON such as {example}: this scorer cuts by paths through the network") from None
    if name not in NETWORKS and name.partition(":")[0] not in ZOOS:  # nobody who may ask for scores says which code is run
        raise not_allowed("network.name", name, f"{', '.join(NETWORKS)}, {', '.join(f'{zoo}:NAME' for zoo in ZOOS)}")
    network = build_network(from_plain(NetworkSpec, fields, "network"), image_shape=image, num_classes=classes, seed=seed)
    there = dict(network.named_parameters())
    if wrong := [layer for layer, weight in weights.items() if layer not in there or there[layer].shape != weight.shape]:
        raise SpecError(f"network: {name} has no {wrong[0]} of shape {tuple(weights[wrong[0]].shape)}; allowed: the network of the table")
    for layer, weight in weights.items():
        there[layer].copy_(weight)
    network.__dict__[CHOICE] = Choice(tuple(weights), None, {})
    return network, torch.zeros(1, *image)
