"""Feature values that must not drift: stored data sets and scorers answer to them. A change here is a new FEATURES_VERSION."""

import pytest
import torch
from torch import tensor

from autosparse.models.features import FEATURE_NAMES, FEATURES_VERSION, feature_matrix_rows, layer_facts

WEIGHTS = {"stem": tensor([0.5, -0.25, 0.125, -0.75, 0.0, 1.0]).view(2, 1, 1, 3), "head": tensor([[0.25, -0.5, 0.75, 1.5]])}
GRADIENTS = {"stem": tensor([0.01, 0.02, -0.005, 0.0, 0.03, -0.04]).view(2, 1, 1, 3), "head": tensor([[0.0, 0.125, -0.5, 0.25]])}

EXPECTED = [  # rows 0, 3, 4, 5 of the stem, 0 and 3 of the head
    [0.5, 0.01, 0.9064675, 0.4453618, -0.09820011, -0.8088683, 0.4453618, 1.098612, 1.791759, 0, 1.791759, 0],
    [-0.75, 0, -1.359701, 0, 0.307265, -9.21034, 0, 1.098612, 1.791759, 0, 1.791759, 0],
    [0, 0.03, 0, 1.336085, -9.21034, 0.2897439, 0, 1.098612, 1.791759, 0, 1.791759, 0],
    [1, -0.04, 1.812935, -1.781447, 0.5949471, 0.577426, -1.781447, 1.098612, 1.791759, 0, 1.791759, 0],
    [0.25, 0, 0.3429972, 0, -1.070033, -9.21034, 0, 1.386294, 0, 1, 1.386294, 1],
    [1.5, 0.25, 2.057983, 0.8728716, 0.7217264, -0.1359668, 0.8728716, 1.386294, 0, 1, 1.386294, 1],
]


def test_names_and_version_belong_together():
    assert FEATURES_VERSION == 1
    assert " ".join(FEATURE_NAMES) == (
        "weight gradient weight_scaled gradient_scaled log_weight log_gradient growth_gradient "
        "log_fan_in log_fan_out depth log_numel linear"
    )


def test_feature_values():
    facts = layer_facts(WEIGHTS, GRADIENTS)
    weight, gradient = (torch.cat([values[layer.name].flatten() for layer in facts]) for values in (WEIGHTS, GRADIENTS))
    features = feature_matrix_rows(tensor([0] * 6 + [1] * 4, dtype=torch.uint8), weight, gradient, facts)
    torch.testing.assert_close(features[[0, 3, 4, 5, 6, 9]], tensor(EXPECTED), rtol=1e-6, atol=1e-6)


def test_stored_facts():
    stem, head = (layer.to_plain() for layer in layer_facts(WEIGHTS, GRADIENTS))
    assert stem == {
        "name": "stem",
        "kind": "conv",
        "shape": [2, 1, 1, 3],
        "fan_in": 3,
        "fan_out": 6,
        "depth": 0.0,
        "numel": 6,
        "weight_std": pytest.approx(0.5515917622864053, rel=1e-12),
        "gradient_rms": pytest.approx(0.022453655473634145, rel=1e-12),
    }
    assert (head["kind"], head["fan_in"], head["fan_out"], head["depth"]) == ("linear", 4, 1, 1.0)
