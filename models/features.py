"""Per-weight features at initialization: what a scorer knows of a weight before any training.

A weight has two numbers of its own, its initial value and its initial gradient; the rest is the layer it stands in. Scaling by
the layer's own spread makes the features independent of batch size, loss scale and the scale of the init.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from autosparse.models.errors import DataError, DivergedError, SpecError, not_allowed
from autosparse.models.specs.fields import from_plain, to_plain

FEATURES_VERSION = 1  # goes up with any change of FEATURE_NAMES or of what a column means

FEATURE_NAMES = (
    "weight",  # raw: these first two are the input of the paper's scorer
    "gradient",
    "weight_scaled",  # weight / weight_std of its layer
    "gradient_scaled",  # gradient / gradient_rms of its layer
    "log_weight",  # ln abs(weight_scaled), at least ln LOG_FLOOR
    "log_gradient",  # ln abs(gradient_scaled), likewise
    "growth_gradient",  # gradient_scaled * sign(weight): below zero where descent makes the weight larger; blind to (w, g) -> (-w, -g)
    "log_fan_in",
    "log_fan_out",
    "depth",
    "log_numel",
    "linear",  # 1.0 in a linear layer, 0.0 in a convolution
)

LAYER_COLUMNS = FEATURE_NAMES[7:]  # the same for all weights of a layer

LOG_FLOOR = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerFacts:
    """What all weights of one prunable layer share.

    `depth` is the layer's place among the prunable layers, 0.0 = first, 1.0 = last. `weight_std` is the population standard
    deviation, `gradient_rms` the root mean square, both over the layer.
    """

    name: str
    kind: Literal["conv", "linear"]
    shape: tuple[int, ...]
    fan_in: int
    fan_out: int
    depth: float
    numel: int
    weight_std: float
    gradient_rms: float

    def to_plain(self) -> dict[str, Any]:
        """The facts as JSON-like data."""
        return to_plain(self)

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> "LayerFacts":
        """The facts out of JSON-like data. Raises DataError on a missing or unknown field."""
        try:
            return from_plain(cls, data, "layer facts")
        except SpecError as error:
            raise DataError(str(error)) from None


def layer_facts(params: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> list[LayerFacts]:
    """The facts of each prunable layer, in the order of `params`; gradients have the shapes of their weights.

    Raises DivergedError where a weight or gradient is NaN or infinite, SpecError where a weight has no gradient or fewer than
    two dimensions.
    """
    facts = []
    for index, (name, weight) in enumerate(params.items()):
        if name not in gradients or gradients[name].shape != weight.shape:
            raise not_allowed(f"gradients.{name}", name in gradients and tuple(gradients[name].shape), f"shape {tuple(weight.shape)}")
        if weight.ndim < 2:
            raise not_allowed(f"params.{name}", tuple(weight.shape), "the weight of a convolution or linear layer")
        taps = math.prod(weight.shape[2:])
        values = weight.detach().double()
        spread, rms = float(values.std(correction=0)), float(gradients[name].double().square().mean().sqrt())
        if not (math.isfinite(spread) and math.isfinite(rms)):
            raise DivergedError(f"{name}: weight spread {spread}, gradient size {rms} are not allowed; allowed: finite")
        facts.append(
            LayerFacts(
                name=name,
                kind="linear" if weight.ndim == 2 else "conv",
                shape=tuple(weight.shape),
                fan_in=weight.shape[1] * taps,
                fan_out=weight.shape[0] * taps,
                depth=index / max(len(params) - 1, 1),
                numel=weight.numel(),
                weight_std=spread,
                gradient_rms=rms,
            )
        )
    return facts


def feature_matrix(weight: Tensor, gradient: Tensor, facts: LayerFacts) -> Tensor:
    """Features (n, len(FEATURE_NAMES)) float32 of n weights of one layer, given as flat tensors (n,)."""
    return _columns(weight, gradient, _constants([facts], weight.device))


def feature_matrix_rows(layers: Tensor, weight: Tensor, gradient: Tensor, facts: Sequence[LayerFacts]) -> Tensor:
    """Features (n, len(FEATURE_NAMES)) float32 of n weights of mixed layers: weight i stands in layer `facts[layers[i]]`."""
    return _columns(weight, gradient, _constants(facts, weight.device)[layers.long()])


def _constants(facts: Sequence[LayerFacts], device: torch.device) -> Tensor:
    """One row per layer: the two scale factors, then the layer context as it stands in the feature matrix."""
    rows = [
        (
            1 / layer.weight_std if layer.weight_std else 0.0,
            1 / layer.gradient_rms if layer.gradient_rms else 0.0,
            math.log(layer.fan_in),
            math.log(layer.fan_out),
            layer.depth,
            math.log(layer.numel),
            float(layer.kind == "linear"),
        )
        for layer in facts
    ]
    return torch.tensor(rows, dtype=torch.float32, device=device)


def _columns(weight: Tensor, gradient: Tensor, constants: Tensor) -> Tensor:
    weight, gradient = weight.detach().float(), gradient.detach().float()
    scaled, pull = weight * constants[:, 0], gradient * constants[:, 1]
    features = weight.new_empty(len(weight), len(FEATURE_NAMES))
    columns = (
        weight,
        gradient,
        scaled,
        pull,
        scaled.abs().clamp_(min=LOG_FLOOR).log_(),
        pull.abs().clamp_(min=LOG_FLOOR).log_(),
        pull * weight.sign(),
    )
    for index, column in enumerate(columns):
        features[:, index] = column
    features[:, len(columns) :] = constants[:, 2:]
    return features
