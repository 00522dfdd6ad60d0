"""The head for layer densities: numbers on paper, exact recovery of a law it can express, one score vector for all densities."""

import math

import pytest
import torch

from autosparse.flows.recipes import smoke
from autosparse.models import seeding
from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.errors import DataError, SpecError
from autosparse.models.features import LayerFacts
from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import global_topk, shares_from_top
from autosparse.models.masks.mask import prunable
from autosparse.models.networks.build import build_network
from autosparse.models.scorers.allocation_head import CONTEXT, Allocation, fit_allocation
from autosparse.models.specs.fields import override
from autosparse.models.specs.run_specs import NetworkSpec
from autosparse.models.specs.scorer_heads import TILTS


def facts(name: str, shape: tuple[int, ...], depth: float) -> LayerFacts:
    taps = math.prod(shape[2:])
    return LayerFacts(
        name=name,
        kind="linear" if len(shape) == 2 else "conv",
        shape=shape,
        fan_in=shape[1] * taps,
        fan_out=shape[0] * taps,
        depth=depth,
        numel=math.prod(shape),
        weight_std=1.0,
        gradient_rms=1.0,
    )


LAYERS = [
    facts("a", (16, 3, 3, 3), 0.0),
    facts("b", (32, 16, 3, 3), 0.25),
    facts("c", (32, 16, 1, 1), 0.5),
    facts("d", (64, 32, 3, 3), 0.75),
    facts("e", (10, 64), 1.0),
]


def head(slope: float, offset: float, **more: float) -> Allocation:
    zeros = (0.0,) * (len(CONTEXT) - 1)
    return Allocation(slopes=(slope, *zeros), offsets=(offset, *zeros), final_density=0.01, **more)


def test_shares_from_the_top_by_hand() -> None:
    assert shares_from_top(torch.tensor([3.0, 9.0, 3.0, -1.0])).tolist() == [0.375, 0.125, 0.625, 0.875]


def test_scores_of_four_weights_on_paper() -> None:
    scores = head(0.5, 0.1).comparable(torch.tensor([[1.0, 4.0], [2.0, 3.0]]), LAYERS[0])
    expected = [(math.log(share) - 0.1) / 0.5 / math.log(0.01) for share in (0.875, 0.125, 0.625, 0.375)]
    assert scores.flatten().tolist() == pytest.approx(expected, rel=1e-12)
    assert scores.shape == (2, 2)


def test_a_law_it_can_express_comes_back() -> None:
    def line(layer: LayerFacts) -> tuple[float, float]:
        return 0.3 + 0.08 * math.log(layer.fan_in) + 0.4 * layer.depth, 0.05 - 0.3 * layer.depth

    cuts = [0.8**k for k in range(1, 15)]
    examples = [(layer, whole, math.exp(line(layer)[0] * math.log(whole) + line(layer)[1])) for layer in LAYERS for whole in cuts]
    found = fit_allocation(examples, final_density=0.02)
    for layer in LAYERS:
        for whole in (0.5, 0.05):
            right, guessed = (slope * math.log(whole) + offset for slope, offset in (line(layer), found.line(layer)))
            assert guessed == pytest.approx(right, abs=0.12)  # the ridge leans towards a uniform network


def test_an_example_says_little_against_a_uniform_network() -> None:
    found = fit_allocation([(layer, 0.5, 0.5) for layer in LAYERS], final_density=0.02)
    assert all(found.line(layer) == pytest.approx((1.0, 0.0), abs=1e-9) for layer in LAYERS)


def test_an_empty_layer_counts_as_half_a_weight() -> None:
    found = fit_allocation([(LAYERS[0], 0.1, 0.0)] * 50, final_density=0.02)
    slope, offset = found.line(LAYERS[0])
    assert math.log(0.5 / LAYERS[0].numel) * 0.9 > slope * math.log(0.1) + offset > math.log(0.5 / LAYERS[0].numel) * 1.1


def test_without_a_cut_there_is_nothing_to_learn() -> None:
    with pytest.raises(DataError, match="no cut below density 1"):
        fit_allocation([(LAYERS[0], 1.0, 1.0)], final_density=0.02)


def test_layers_get_the_densities_of_their_lines_at_every_density() -> None:
    steep, flat = torch.rand(4000, generator=seeding.generator(1)), torch.rand(1000, generator=seeding.generator(2))
    lines = {"steep": head(1.4, 0.0), "flat": head(0.5, 0.0)}
    scores = {"steep": lines["steep"].comparable(steep, LAYERS[0]), "flat": lines["flat"].comparable(flat, LAYERS[0])}
    before = None
    for density in (0.5, 0.1, 0.02):
        mask = global_topk(scores, density)
        kept = {name: float(keep.float().mean()) for name, keep in mask.items()}
        # both lie on their lines at one and the same network density
        assert math.log(kept["steep"]) / 1.4 == pytest.approx(math.log(kept["flat"]) / 0.5, abs=0.1)
        assert before is None or all(not (mask[name] & ~before[name]).any() for name in mask)
        before = mask


def test_no_sharpness_is_chance_and_a_high_one_is_the_ranking() -> None:
    values = torch.arange(2000.0)
    stream = seeding.generator(3)
    best = set(range(1900, 2000))

    def found(sharpness: float | None) -> float:
        scores = head(1.0, 0.0, **({} if sharpness is None else {"sharpness": sharpness})).comparable(values, LAYERS[0], stream)
        return len(best & set(scores.topk(100).indices.tolist())) / 100

    assert found(None) == 1.0
    assert found(0.0) < 0.2
    assert found(0.0) < found(4.0) < found(400.0)
    assert found(400.0) > 0.9


def test_without_a_generator_there_is_no_noise() -> None:
    values = torch.tensor([3.0, 1.0, 2.0])
    assert torch.equal(head(1.0, 0.0, sharpness=0.0).comparable(values, LAYERS[0]), head(1.0, 0.0).comparable(values, LAYERS[0]))


def test_a_tilt_moves_the_layers_that_it_names() -> None:
    assert len(CONTEXT) == TILTS
    examples = [(layer, 0.5, 0.5) for layer in LAYERS]
    plain = fit_allocation(examples, final_density=0.02)
    tilted = fit_allocation(examples, final_density=0.02, tilt=(0.0, 0.0, 0.0, 0.0, 0.0, 1.2))
    for layer in LAYERS:
        moved = 1.2 if layer.name == "c" else 0.0  # the 1x1 convolution
        assert tilted.line(layer)[0] - plain.line(layer)[0] == pytest.approx(moved)
    with pytest.raises(SpecError, match=r"scorer.tilt: \[1.0\] is not allowed; allowed: 6 numbers, or none"):
        override(smoke(), {"scorer.tilt": [1.0]})


def test_it_travels_as_json_and_refuses_another_number_of_coefficients() -> None:
    one = head(0.7, 0.2, sharpness=2.0)
    assert Allocation.from_plain(one.to_plain()) == one
    with pytest.raises(DataError, match="3 coefficients are not allowed; allowed: 6"):
        Allocation.from_plain({**one.to_plain(), "slopes": [1.0, 0.0, 0.0]})
    with pytest.raises(DataError):
        Allocation.from_plain({"slopes": [1.0]})


def test_it_fills_layers_by_another_criterion() -> None:
    network = build_network(NetworkSpec(name="resnet8", width=8), image_shape=(3, 16, 16), num_classes=10, seed=0)
    law = Allocation(slopes=(0.6, 0.0, 0.0, 0.8, 0.0, 0.0), offsets=(0.0,) * 6, final_density=0.02)
    score = law.criterion(CRITERIA["magnitude"].score)
    batches: list[tuple[torch.Tensor, torch.Tensor]] = []
    mask = global_topk(score(network, batches, seeding.generator(0), density=0.02), 0.05)
    densities = list(masks.layer_densities(mask).values())
    assert densities == sorted(densities, reverse=True)
    for name, param in prunable(network).items():
        kept = param.detach().abs()[mask[name]]
        assert kept.min() >= param.detach().abs()[~mask[name]].max()
