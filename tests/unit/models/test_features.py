"""Features of four weights, worked out on paper."""

import math

import pytest
import torch
from torch import tensor

from autosparse.models.errors import DataError, DivergedError, SpecError
from autosparse.models.features import FEATURE_NAMES, LOG_FLOOR, LayerFacts, feature_matrix, feature_matrix_rows, layer_facts
from autosparse.models.seeding import generator

WEIGHT = tensor([[3.0, 1.0], [-1.0, -3.0]])  # mean 0, mean square 5
GRADIENT = tensor([[2.0, -2.0], [-2.0, 2.0]])  # root mean square 2


def column(features: torch.Tensor, name: str) -> torch.Tensor:
    return features[:, FEATURE_NAMES.index(name)]


def four_weights() -> tuple[torch.Tensor, LayerFacts]:
    (facts,) = layer_facts({"fc": WEIGHT}, {"fc": GRADIENT})
    return feature_matrix(WEIGHT.flatten(), GRADIENT.flatten(), facts), facts


def test_facts_of_a_linear_layer_by_hand():
    _, facts = four_weights()
    assert (facts.name, facts.kind, facts.shape, facts.fan_in, facts.fan_out, facts.numel) == ("fc", "linear", (2, 2), 2, 2, 4)
    assert facts.depth == 0.0
    assert facts.weight_std == pytest.approx(math.sqrt(5))
    assert facts.gradient_rms == 2.0


def test_weight_std_is_about_the_mean_and_gradient_rms_about_zero():
    (facts,) = layer_facts({"fc": WEIGHT + 10}, {"fc": tensor([[3.0, 3.0], [3.0, 3.0]])})
    assert facts.weight_std == pytest.approx(math.sqrt(5))
    assert facts.gradient_rms == 3.0


def test_facts_of_three_layers_give_fans_and_depth():
    params = {"stem": torch.ones(8, 3, 5, 5), "conv": torch.ones(16, 4, 3, 3), "head": torch.ones(10, 16)}
    facts = layer_facts(params, params)
    assert [layer.name for layer in facts] == ["stem", "conv", "head"]
    assert [(layer.fan_in, layer.fan_out) for layer in facts] == [(75, 200), (36, 144), (16, 10)]
    assert [layer.depth for layer in facts] == [0.0, 0.5, 1.0]
    assert [layer.kind for layer in facts] == ["conv", "conv", "linear"]


def test_features_of_four_weights_by_hand():
    features, _ = four_weights()
    root = math.sqrt(5)
    assert features.dtype == torch.float32 and features.shape == (4, len(FEATURE_NAMES))
    expected = {
        "weight": [3, 1, -1, -3],
        "gradient": [2, -2, -2, 2],
        "weight_scaled": [3 / root, 1 / root, -1 / root, -3 / root],
        "gradient_scaled": [1, -1, -1, 1],
        "log_weight": [math.log(3 / root), math.log(1 / root), math.log(1 / root), math.log(3 / root)],
        "log_gradient": [0, 0, 0, 0],
        "growth_gradient": [1, -1, 1, -1],
        "log_fan_in": [math.log(2)] * 4,
        "log_fan_out": [math.log(2)] * 4,
        "depth": [0] * 4,
        "log_numel": [math.log(4)] * 4,
        "linear": [1] * 4,
    }
    assert tuple(expected) == FEATURE_NAMES
    for name, values in expected.items():
        torch.testing.assert_close(column(features, name), tensor(values, dtype=torch.float32), rtol=1e-6, atol=1e-6)


def test_scaled_features_do_not_see_the_scale_of_loss_or_init():
    small, _ = four_weights()
    (facts,) = layer_facts({"fc": WEIGHT * 8}, {"fc": GRADIENT * 196})
    large = feature_matrix(WEIGHT.flatten() * 8, GRADIENT.flatten() * 196, facts)
    torch.testing.assert_close(large[:, 2:], small[:, 2:])
    assert not torch.equal(large[:, :2], small[:, :2])


def test_sign_symmetry_shows_in_all_but_the_signed_columns():
    features, facts = four_weights()
    mirrored = feature_matrix(-WEIGHT.flatten(), -GRADIENT.flatten(), facts)
    changed = {name for name in FEATURE_NAMES if not torch.equal(column(features, name), column(mirrored, name))}
    assert changed == {"weight", "gradient", "weight_scaled", "gradient_scaled"}


def test_a_layer_without_spread_or_gradient_has_finite_features():
    still = {"fc": torch.full((2, 2), 0.5)}
    (facts,) = layer_facts(still, {"fc": torch.zeros(2, 2)})
    features = feature_matrix(still["fc"].flatten(), torch.zeros(4), facts)
    assert facts.weight_std == 0.0 and facts.gradient_rms == 0.0
    assert features.isfinite().all()
    assert column(features, "log_weight").tolist() == pytest.approx([math.log(LOG_FLOOR)] * 4)
    assert column(features, "gradient_scaled").tolist() == [0.0] * 4


def test_rows_of_mixed_layers_equal_the_layers_alone():
    stream = generator(1, "test")
    params = {"conv": torch.randn(4, 3, 3, 3, generator=stream), "fc": torch.randn(5, 7, generator=stream)}
    gradients = {name: torch.randn(weight.shape, generator=stream) for name, weight in params.items()}
    facts = layer_facts(params, gradients)
    weight, gradient = (torch.cat([values[name].flatten() for name in params]) for values in (params, gradients))
    layers = torch.cat([torch.full((108,), 0), torch.full((35,), 1)]).to(torch.uint8)
    order = torch.randperm(143, generator=stream)
    mixed = feature_matrix_rows(layers[order], weight[order], gradient[order], facts)
    alone = torch.cat([feature_matrix(params[f.name].flatten(), gradients[f.name].flatten(), f) for f in facts])
    assert torch.equal(mixed, alone[order])
    assert not torch.equal(alone[:35, 2:], alone[108:, 2:])


def test_facts_survive_json_and_refuse_what_is_not_theirs():
    _, facts = four_weights()
    assert LayerFacts.from_plain(facts.to_plain()) == facts
    with pytest.raises(DataError, match=r"layer facts.*'color' is not known"):
        LayerFacts.from_plain(facts.to_plain() | {"color": 1})
    with pytest.raises(DataError, match=r"layer facts.fan_in: missing"):
        LayerFacts.from_plain({key: value for key, value in facts.to_plain().items() if key != "fan_in"})


def test_bad_layers_are_named():
    with pytest.raises(DivergedError, match="fc: .*nan"):
        layer_facts({"fc": WEIGHT}, {"fc": GRADIENT * float("nan")})
    with pytest.raises(SpecError, match=r"gradients.fc.*\(2, 2\)"):
        layer_facts({"fc": WEIGHT}, {})
    with pytest.raises(SpecError, match=r"gradients.fc.*\(2, 2\)"):
        layer_facts({"fc": WEIGHT}, {"fc": GRADIENT.flatten()})
    with pytest.raises(SpecError, match="params.bias"):
        layer_facts({"bias": torch.ones(3)}, {"bias": torch.ones(3)})
